"""The reserved settings of queues and topics, by the options that set them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zaqar_gevent.terminal.values import count, pair, retry_delay, whole


class Setting(NamedTuple):
    """A setting of a queue.

    name: of its option, without dashes before it. key: in the metadata. metavar: None for a switch.
    unit: added to its value where people read it. for_topics: whether topics have it as well.
    """

    name: str
    key: str
    type: Callable[[str], Any] | None
    metavar: str | None
    help: str
    unit: str = ''
    for_topics: bool = False


SETTINGS = (
    Setting(
        'default-ttl',
        '_default_message_ttl',
        count,
        'SECONDS',
        'how long messages are kept whose post does not say, 60 to 1209600 (default: 3600)',
        's',
        for_topics=True,
    ),
    Setting(
        'default-delay',
        '_default_message_delay',
        whole,
        'SECONDS',
        'how long messages reach nobody whose post does not say, 0 to 900 (default: 0)',
        's',
        for_topics=True,
    ),
    Setting(
        'max-post-size',
        '_max_messages_post_size',
        count,
        'BYTES',
        'size of a post at most, all its messages together (default: 262144)',
        ' bytes',
        for_topics=True,
    ),
    Setting(
        'max-claims',
        '_max_claim_count',
        count,
        'N',
        'after N claims, a message that was not deleted goes to the dead-letter queue '
        '(default: no limit). Needs --dead-letter-queue',
    ),
    Setting(
        'dead-letter-queue',
        '_dead_letter_queue',
        str,
        'QUEUE',
        'where messages go after --max-claims claims (default: nowhere)',
    ),
    Setting(
        'dead-letter-ttl',
        '_dead_letter_queue_messages_ttl',
        count,
        'SECONDS',
        'how long dead letters are kept, 60 to 1209600 (default: as long as the message has left)',
        's',
    ),
    Setting(
        'retry-delay',
        '_retry_delay',
        retry_delay,
        'SECONDS[,FACTOR[,MAX]]',
        'how long a message that failed waits for its next claim; each further wait is FACTOR '
        'times as long, 1 to 10 (default: 2), up to MAX seconds, 43200 or less (default: 300). For '
        'example 1,2,300 (default: no wait)',
    ),
    Setting(
        'flavor',
        '_flavor',
        str,
        'FLAVOR',
        'keep the messages in the pools of this flavor; for a new queue, on a server with pools '
        '(default: any pool)',
    ),
    Setting(
        'encrypt',
        '_enable_encrypt_messages',
        None,
        None,
        'store message bodies encrypted, if the server has keys (default: --no-encrypt)',
    ),
    Setting(
        'trace-context',
        '_trace_context',
        None,
        None,
        'store the trace of a post (W3C Trace Context) with its messages (default: '
        '--no-trace-context)',
    ),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


def add_settings(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add an option for each setting of a `queue` or `topic`, and `--metadata` for other keys."""
    group = parser.add_argument_group('settings')
    for setting in settings_of(kind):
        options: dict[str, Any] = {'dest': setting.key, 'default': None, 'help': setting.help}
        if setting.metavar is None:
            options['action'] = argparse.BooleanOptionalAction
        else:
            options |= {'type': setting.type, 'metavar': setting.metavar}
        group.add_argument(f'--{setting.name}', **options)
    group.add_argument(
        '--metadata',
        type=pair,
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='a key of your own, with JSON or else text as its value; may be given more than once. '
        'Keys that start with _ are reserved settings',
    )


def settings_of(kind: str) -> list[Setting]:
    """The settings that a `queue` or `topic` has."""
    return [one for one in SETTINGS if kind == 'queue' or one.for_topics]


def given_metadata(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """The metadata that the options of `add_settings` stand for."""
    given = {one.key: getattr(arguments, one.key) for one in settings_of(kind)}
    return {key: value for key, value in given.items() if value is not None} | dict(
        arguments.metadata
    )


def key_of(name: str) -> str:
    """The key in the metadata for the name of a setting, or for a key."""
    setting = _BY_NAME.get(name.removeprefix('--'))
    return name if setting is None else setting.key


def described(metadata: Mapping[str, Any], kind: str) -> dict[str, str | Any]:
    """The metadata for people: settings by their options' names, with units, then the rest."""
    left = dict(metadata)
    told: dict[str, Any] = {}
    for setting in settings_of(kind):
        value = left.pop(setting.key, None)
        if value is not None:
            told[setting.name] = f'{value}{setting.unit}' if setting.unit else value
    return told | {key: value for key, value in left.items() if value is not None}
