"""`redrive`: dead letters that the server moves back."""

from __future__ import annotations

import argparse
import itertools
import shlex
import time
from typing import Any

from zaqar_gevent.client import Client, Queue, Redrive
from zaqar_gevent.terminal.display import Display, complain
from zaqar_gevent.terminal.queues import exists, tell_missing

# `redrive show` has the others.
_COLUMNS = ('id', 'target', 'state', 'moved', 'left', 'started', 'reason')
_PAUSE_SECONDS = 0.5


def run_start(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Begin a redrive, and show how far it is until it is over."""
    queue = client.queue(arguments.queue)
    if _is_missing(queue):
        return tell_missing(queue)
    redrive = queue.redrive(target=arguments.target, limit=arguments.limit, rate=arguments.rate)
    if arguments.no_wait:
        display.show(_record(redrive), f'Redrive {redrive.id} has begun.', whole=True)
        return 0
    # Of all that is there, some may be claimed, and stay.
    total = queue.stats()['messages']['total'] + redrive.moved
    if arguments.limit is not None:
        total = min(total, arguments.limit)
    if display.human:
        _wait_with_bar(redrive, total)
    else:
        _wait_with_lines(redrive, display)
    display.say(_told(redrive))
    if redrive.state != 'finished':
        complain(f'the redrive is {redrive.state}: {redrive.reason or "somebody has ended it"}')
        return 1
    if redrive.left:
        complain(_advice(redrive, arguments.queue))
        return 1
    return 0


def run_list(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print the redrives of a queue."""
    queue = client.queue(arguments.queue)
    records = [_record(one) for one in itertools.islice(queue.redrives(), arguments.limit)]
    if not records and _is_missing(queue):
        return tell_missing(queue)
    rows = [tuple(_cell(record[column]) for column in _COLUMNS) for record in records]
    display.show_table(records, _COLUMNS, rows)
    return 0


def run_show(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print a redrive."""
    record = _record(client.queue(arguments.queue).get_redrive(arguments.redrive))
    display.show_fields(record, record)
    return 0


def run_cancel(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Cancel a redrive; messages that it has moved stay moved."""
    redrive = client.queue(arguments.queue).get_redrive(arguments.redrive)
    redrive.cancel()
    display.show(_record(redrive), _told(redrive), whole=True)
    return 0


def _is_missing(queue: Queue) -> bool:
    return not exists(queue) and not queue.stats()['messages']['total']


def _wait_with_bar(redrive: Redrive, total: int) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn('moved'), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task('', total=total)
        while not redrive.refresh().is_over:
            progress.update(task, completed=redrive.moved)
            time.sleep(_PAUSE_SECONDS)


def _wait_with_lines(redrive: Redrive, display: Display) -> None:
    """A line at once, one for each change, and one at the end."""
    shown = None
    while True:
        record = _record(redrive)
        if record != shown:
            display.show(record, '')
        if redrive.is_over:
            return
        shown = record
        time.sleep(_PAUSE_SECONDS)
        redrive.refresh()


def _told(redrive: Redrive) -> str:
    left = f', {redrive.left} left' if redrive.left else ''
    return f'Redrive {redrive.id} is {redrive.state}: {redrive.moved} moved{left}.'


def _advice(redrive: Redrive, queue_name: str) -> str:
    one = redrive.left == 1
    return (
        f'{redrive.left} message{" was" if one else "s were"} left: the server does not know where '
        f'{"it is" if one else "they are"} from. Name the queue to move '
        f'{"it" if one else "them"} to: zaqar-gevent redrive {shlex.quote(queue_name)} '
        '--target QUEUE'
    )


def _record(redrive: Redrive) -> dict[str, Any]:
    names = ('id', 'target', 'limit', 'rate', 'state', 'reason', 'moved', 'left')
    return {name: getattr(redrive, name) for name in (*names, 'started', 'ended')}


def _cell(value: Any) -> str:
    return '' if value is None else str(value)
