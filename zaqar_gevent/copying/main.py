"""The command line of `zaqar-gevent store`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from oslo_config import cfg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from zaqar.common import errors as configuration_errors
from zaqar.storage import errors

from zaqar_gevent.copying import copier, stores
from zaqar_gevent.storage.records import ReadableStore, WritableStore

COPIED = 0
FAILED = 1
MISUSED = 2
INTERRUPTED = 130

_HELP = """
URI is as in the configuration of a server: sqlite:////absolute/path, sqlite:///relative/path,
redis://HOST[:PORT], rediss://..., redis://HOST:PORT,...?master=NAME for Sentinel, or
postgresql://..., with ?schema=NAME for another schema than zaqar.

What is copied: pools, flavors, the catalogue, queues and topics with their metadata, subscriptions
(but for those of open WebSockets), and messages in their order, with what is left of their TTL and
delay, their claim count, and the claims that hold them. Bodies are copied as they are stored, so
encrypted ones stay encrypted. Metadata in the target are replaced.

Ids: claims keep their ids. Messages and subscriptions keep theirs from Redis to Redis, and get new
ones otherwise. Markers of the source mean nothing in the target: clients that follow a queue have
to begin at its start.

Stop the servers of the source first: what is posted or deleted meanwhile may be copied or not.
Messages that a worker holds are held in the target as well. Where they get new ids, the worker
cannot delete them by their old ones.

If the copy is interrupted, run the same command again: messages that were copied to this target
within the last 7 days are not copied twice.

exit status:
  0    everything has been copied
  1    a store could not be read or written, or source and target are the same store, or the target
       cannot keep the name of a queue
  2    the command line is wrong
  130  interrupted by Ctrl-C
"""


def main(argv: Sequence[str]) -> int:
    """Run `zaqar-gevent store ...`; returns the exit status."""
    options = _parse(argv)
    try:
        source = stores.open_source(options.source)
        try:
            target = stores.open_target(options.target)
            try:
                counts = _copy(source, target, skip_refused=options.skip_refused)
            finally:
                target.close()
        finally:
            source.close()
    except KeyboardInterrupt:
        print('zaqar-gevent: interrupted; run the command again to go on', file=sys.stderr)
        return INTERRUPTED
    except (stores.UnknownStore, configuration_errors.ConfigurationError) as error:
        print(f'zaqar-gevent: {error}', file=sys.stderr)
        return MISUSED
    except (copier.SameStore, copier.RefusedQueues) as error:
        print(f'zaqar-gevent: {error}', file=sys.stderr)
        return FAILED
    except (errors.ConnectionError, cfg.Error) as error:
        print(f'zaqar-gevent: {error}', file=sys.stderr)
        return FAILED
    _print(counts, as_json=options.json)
    return COPIED


def _copy(source: ReadableStore, target: WritableStore, *, skip_refused: bool) -> copier.Counts:
    """Copy, and show how far it is where standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return copier.copy(source, target, skip_refused=skip_refused)
    total = sum(source.count_messages(queue) for queue in source.read_queues())
    columns = (TextColumn('messages'), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task('messages', total=total)
        return copier.copy(
            source,
            target,
            lambda counts: progress.update(bar, completed=counts.messages),
            skip_refused=skip_refused,
        )


def _print(counts: copier.Counts, *, as_json: bool) -> None:
    found = dataclasses.asdict(counts)
    if as_json:
        print(json.dumps(found))
        return
    for name, number in found.items():
        print(f'{_LABELS[name]}: {number}')


_LABELS = {
    'queues': 'queues',
    'topics': 'topics',
    'messages': 'messages',
    'added': '  added by this run',
    'claimed': '  held by claims',
    'delayed': '  delayed',
    'subscriptions': 'subscriptions',
    'pools': 'pools',
    'flavors': 'flavors',
    'places': 'queues in the catalogue of pools',
    'skipped': 'queues left out, since the target cannot keep their names',
}


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent store', description='Work on stores, without a server.'
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    copying = commands.add_parser(
        'copy',
        help='copy all that one store holds to another',
        description='Copy all that one store holds to another.',
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    copying.add_argument('--from', dest='source', required=True, metavar='URI', help='the source')
    copying.add_argument('--to', dest='target', required=True, metavar='URI', help='the target')
    copying.add_argument(
        '--skip-refused',
        action='store_true',
        help='leave out queues whose names the target cannot keep (Redis: project IDs with a dot, '
        'and names that end like a key of its own); without it nothing is copied then',
    )
    copying.add_argument('--json', action='store_true', help='print the counts as one line of JSON')
    return parser.parse_args(argv)
