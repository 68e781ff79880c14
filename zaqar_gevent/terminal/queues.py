"""`queue` and `topic`: what there is, its settings, and its end."""

from __future__ import annotations

import argparse
import itertools
import shlex
from collections.abc import Mapping, Set
from typing import Any

from zaqar_gevent.client import Client, Conflict, Queue, Topic
from zaqar_gevent.terminal.confirmation import confirmed
from zaqar_gevent.terminal.display import Display, complain, text
from zaqar_gevent.terminal.settings import (
    described,
    given_metadata,
    key_of,
    option_of,
    settings_of,
    without_effect,
)


def run_list(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print the names of queues or topics, with `--details` their metadata."""
    kind: str = arguments.kind
    pages = _pages(client, kind, arguments)
    records = list(itertools.islice(itertools.chain.from_iterable(pages), arguments.limit))
    if not arguments.details:
        for record in records:
            display.show(record, record['name'])
        return 0
    rows = [(one['name'], ', '.join(_settings(one['metadata'], kind))) for one in records]
    display.show_table(records, (kind, 'settings'), rows)
    return 0


def _pages(client: Client, kind: str, arguments: argparse.Namespace) -> Any:
    marker = arguments.marker
    while True:
        asked = {'marker': marker, 'name': arguments.name, 'detailed': arguments.details or None}
        given = {name: value for name, value in asked.items() if value is not None}
        page = client.call(f'{kind}_list', **given)
        yield page[f'{kind}s']
        if not page[f'{kind}s'] or page.get('marker') in (None, '', marker):
            return
        marker = page['marker']


def _settings(metadata: dict[str, Any], kind: str) -> list[str]:
    return [f'{name}={text(value)}' for name, value in described(metadata, kind).items()]


def run_create(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Create a queue or topic; one that exists is left as it is."""
    source = _source(client, arguments)
    metadata = given_metadata(arguments, arguments.kind)
    try:
        is_new = source.create(metadata or None)
    except Conflict:
        complain(
            f'{source.name} exists already with other settings and was not changed; to change '
            f'them, use `zaqar-gevent {arguments.kind} set`'
        )
        return 1
    _warn_of_dead_letters(client, metadata)
    _warn_of_no_effect(source, metadata.keys(), metadata)
    told = 'created' if is_new else 'exists already'
    display.show({'name': source.name, 'created': is_new}, f'{source.name} {told}.')
    return 0


def run_show(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print the settings of a queue or topic, and how many messages it holds."""
    source = _source(client, arguments)
    if not exists(source):
        return tell_missing(source)
    metadata = source.get_metadata()
    messages = source.stats()['messages']
    record = {'name': source.name, 'metadata': metadata, 'messages': messages}
    counts = {name: messages[name] for name in ('free', 'claimed', 'total')}
    display.show_fields(
        record, {'name': source.name, **counts, **described(metadata, arguments.kind)}
    )
    return 0


def run_set(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Change the settings of a queue or topic."""
    source = _source(client, arguments)
    given = given_metadata(arguments, arguments.kind)
    if not given and not arguments.unset:
        complain('nothing to set: give a setting, --metadata or --unset')
        return 2
    if not exists(source):
        return tell_missing(source)
    before = source.get_metadata() if arguments.unset else {}
    unset = {key_of(name, arguments.kind, before) for name in arguments.unset}
    unknown = unset - before.keys() - {setting.key for setting in settings_of(arguments.kind)}
    if unknown:
        return _tell_unknown_settings(source, unknown, before)
    changes: list[dict[str, Any]] = [
        {'op': 'add', 'path': _pointer(key), 'value': value} for key, value in given.items()
    ]
    # A setting that is not there has its default already.
    changes += [
        {'op': 'remove', 'path': _pointer(key)}
        for key in sorted(unset & before.keys() - given.keys())
    ]
    metadata = source.update(changes) if changes else before
    _warn_of_dead_letters(client, given)
    _warn_of_no_effect(source, given.keys() | unset, metadata)
    record = {'name': source.name, 'metadata': metadata}
    display.show_fields(record, {'name': source.name, **described(metadata, arguments.kind)})
    return 0


def run_delete(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Delete queues or topics with their messages; subscriptions stay."""
    sources = [_get(client, arguments.kind, name) for name in arguments.names]
    missing = [source for source in sources if not exists(source)]
    if missing:
        return tell_missing(missing[0])
    names = ', '.join(source.name for source in sources)
    question = f'Delete {names} with {_messages(sources)}. This cannot be undone. Go on'
    if not confirmed(question, arguments):
        return 1
    for source in sources:
        source.delete()
        display.show({'name': source.name, 'deleted': True}, f'{source.name} deleted.')
    return 0


def run_purge(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Delete the messages of a queue or topic that nobody has claimed; it stays itself."""
    source = _source(client, arguments)
    if not exists(source):
        return tell_missing(source)
    resources = ['messages', *(['subscriptions'] if arguments.subscriptions else [])]
    question = (
        f'Delete all {" and ".join(resources)} of {source.name} ({_messages([source])}). '
        'This cannot be undone. Go on'
    )
    if not confirmed(question, arguments):
        return 1
    source.purge(resources)
    display.show({'name': source.name, 'purged': resources}, f'{source.name} purged.')
    return 0


def _warn_of_dead_letters(client: Client, given: dict[str, Any]) -> None:
    name = given.get('_dead_letter_queue')
    if isinstance(name, str) and name and not exists(client.queue(name)):
        complain(
            f'warning: there is no queue {name} for dead letters yet; create it: '
            f'zaqar-gevent queue create {name}'
        )


def _warn_of_no_effect(
    source: Queue | Topic, changed: Set[str], metadata: Mapping[str, Any]
) -> None:
    for setting, needed in without_effect(source.kind, changed, metadata):
        complain(
            f'warning: --{setting} has no effect without --{needed}; set it: zaqar-gevent '
            f'{source.kind} set {shlex.quote(source.name)} --{needed} ...'
        )


def _tell_unknown_settings(
    source: Queue | Topic, unknown: Set[str], metadata: Mapping[str, Any]
) -> int:
    settings = settings_of(source.kind)
    own = sorted(metadata.keys() - {setting.key for setting in settings})
    names = ', '.join(option_of(setting) for setting in settings)
    complain(
        f'there is no setting or key {", ".join(sorted(unknown))} of {source.name}. Settings are '
        f'{names}; its own keys: {", ".join(own) or "none"}'
    )
    return 1


def exists(source: Queue | Topic) -> bool:
    """Whether a queue or topic exists; nothing is created to find out."""
    return source.exists()


def tell_missing(source: Queue | Topic) -> int:
    """Say that a queue or topic does not exist; gives the exit status."""
    complain(
        f'there is no {source.kind} {source.name} in project {source.project}. A post to it '
        f'creates it, and so does `zaqar-gevent {source.kind} create`'
    )
    return 1


def _source(client: Client, arguments: argparse.Namespace) -> Queue | Topic:
    return _get(client, arguments.kind, arguments.name)


def source_of(client: Client, arguments: argparse.Namespace) -> Queue | Topic:
    """The queue that the argument QUEUE names, or with `--topic` the topic."""
    return _get(client, 'topic' if arguments.topic else 'queue', arguments.queue)


def _get(client: Client, kind: str, name: str) -> Queue | Topic:
    return client.queue(name) if kind == 'queue' else client.topic(name)


def _messages(sources: list[Queue | Topic]) -> str:
    total = sum(source.stats()['messages']['total'] for source in sources)
    return f'{total} message{"" if total == 1 else "s"}'


def _pointer(key: str) -> str:
    """Where a key is, as a JSON pointer (RFC 6901)."""
    return f'/metadata/{key.replace("~", "~0").replace("/", "~1")}'
