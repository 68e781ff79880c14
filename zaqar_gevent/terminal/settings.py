"""The reserved settings of queues and topics, by the options that set them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from zaqar_gevent.client.metadata import check_key
from zaqar_gevent.client.queue_settings import SETTINGS, Setting
from zaqar_gevent.terminal.display import complain
from zaqar_gevent.terminal.values import count, json_object, pair, retry_delay, whole

_READERS: dict[str, Callable[[str], Any]] = {
    'number': count,
    'whole': whole,
    'text': str,
    'retry_delay': retry_delay,
    'object': json_object,
}

# What settings do nothing without.
_NEEDED = {'max-claims': 'dead-letter-queue', 'dead-letter-ttl': 'dead-letter-queue'}

_BY_OPTION = {one.name.replace('_', '-'): one for one in SETTINGS}


def add_settings(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add an option for each setting of a `queue` or `topic`, and `--metadata` for other keys."""
    group = parser.add_argument_group('settings')
    for setting in settings_of(kind):
        # Names are those of options here, and argparse formats its help by `%`.
        told = re.sub(r'`(\w+)`', _as_option, setting.told).replace('%', '%%')
        options: dict[str, Any] = {'dest': setting.key, 'default': None, 'help': told}
        if setting.form == 'switch':
            options['action'] = argparse.BooleanOptionalAction
        else:
            options |= {'type': _READERS[setting.form], 'metavar': setting.placeholder}
        group.add_argument(f'--{option_of(setting)}', **options)
    group.add_argument(
        '--metadata',
        type=pair,
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='a key of your own, with JSON or else text as its value; may be given more than once. '
        'Keys that start with _ are reserved for settings',
    )


def option_of(setting: Setting) -> str:
    """The name of a setting as an option, without its dashes."""
    return setting.name.replace('_', '-')


def _as_option(name: re.Match[str]) -> str:
    option = name[1].replace('_', '-')
    return f'--{option}' if option in _BY_OPTION else name[1].upper()


def settings_of(kind: str) -> list[Setting]:
    """The settings that a `queue` or `topic` has."""
    return [one for one in SETTINGS if kind == 'queue' or one.for_topics]


def given_metadata(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """The metadata that the options of `add_settings` stand for."""
    given = {one.key: getattr(arguments, one.key) for one in settings_of(kind)}
    own = dict(arguments.metadata)
    for key in own:
        try:
            check_key(key)
        except ValueError as error:
            complain(str(error))
            raise SystemExit(2) from None
    return {key: value for key, value in given.items() if value is not None} | own


def key_of(name: str, kind: str, metadata: Mapping[str, Any]) -> str:
    """The key in the metadata that is meant by a key, or by the name of a setting.

    name: a setting's may be spelled as an option, `max-claims`, or as in Python, `max_claims`.
    """
    if name in metadata:
        return name
    setting = _BY_OPTION.get(name.removeprefix('--').replace('_', '-'))
    return name if setting is None or setting not in settings_of(kind) else setting.key


def without_effect(
    kind: str, changed: Set[str], metadata: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The settings that have no effect, each with the setting that it needs.

    changed: only pairs are told of which a key is among these. metadata: after the change.
    """
    for name, needed_name in _NEEDED.items():
        setting, needed = _BY_OPTION[name], _BY_OPTION[needed_name]
        is_set = metadata.get(setting.key) is not None and not metadata.get(needed.key)
        if is_set and setting in settings_of(kind) and changed & {setting.key, needed.key}:
            yield name, needed_name


def described(metadata: Mapping[str, Any], kind: str) -> dict[str, str | Any]:
    """The metadata for people: settings by their options' names, with units, then the rest."""
    left = dict(metadata)
    told: dict[str, Any] = {}
    for setting in settings_of(kind):
        value = left.pop(setting.key, None)
        if value is not None:
            told[option_of(setting)] = f'{value}{setting.unit}' if setting.unit else value
    return told | {key: value for key, value in left.items() if value is not None}
