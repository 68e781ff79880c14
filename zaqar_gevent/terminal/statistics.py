"""`stats`: how many messages queues hold, once or again and again."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from zaqar_gevent.client import Client, NotFound, Queue, Topic
from zaqar_gevent.terminal.display import Display, print_table, printable
from zaqar_gevent.terminal.queues import exists, source_of, tell_missing
from zaqar_gevent.terminal.reader import being_read

# What the table of the counts has beside the names.
_NUMBERS_WIDTH = 60


class Count(NamedTuple):
    """A queue's counts at a time, in seconds of the monotonic clock."""

    queue: str
    free: int
    claimed: int
    total: int
    at: float


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print the counts of one queue or of all; returns the exit status."""
    if arguments.queue is not None and not exists(source_of(client, arguments)):
        return tell_missing(source_of(client, arguments))
    if arguments.watch is None:
        _print(display, list(_counts(client, arguments)), {})
    elif display.human:
        _watch_live(client, arguments)
    else:
        _watch(client, arguments, display)
    return 0


def _counts(client: Client, arguments: argparse.Namespace) -> Iterator[Count]:
    if arguments.queue is not None:
        yield _count(source_of(client, arguments))
        return
    for source in client.topics() if arguments.topic else client.queues():
        # It may have been deleted since it was listed.
        with contextlib.suppress(NotFound):
            yield _count(source)


def _count(source: Queue | Topic) -> Count:
    messages = source.stats()['messages']
    free, claimed, total = (messages[member] for member in ('free', 'claimed', 'total'))
    return Count(source.name, free, claimed, total, time.monotonic())


def change(count: Count, before: Count | None) -> float | None:
    """By how many messages a second a queue has grown since it was counted before."""
    if before is None or count.at == before.at:
        return None
    return (count.total - before.total) / (count.at - before.at)


def _print(display: Display, counts: list[Count], before: dict[str, Count]) -> None:
    if display.human:
        longest = max((len(printable(count.queue)) for count in counts), default=0)
        print_table(_table(counts, before, watched=False), longest + _NUMBERS_WIDTH)
        return
    for count in counts:
        record: dict[str, Any] = {**count._asdict(), 'at': time.time()}
        rate = change(count, before.get(count.queue))
        if rate is not None:
            record['change_per_second'] = round(rate, 3)
        display.show(record, '')


def _watch(client: Client, arguments: argparse.Namespace, display: Display) -> None:
    before: dict[str, Count] = {}
    with being_read():
        while True:
            counts = list(_counts(client, arguments))
            _print(display, counts, before)
            before = {count.queue: count for count in counts}
            time.sleep(arguments.watch)


def _watch_live(client: Client, arguments: argparse.Namespace) -> None:
    from rich.live import Live

    before: dict[str, Count] = {}
    with Live(auto_refresh=False) as live:
        while True:
            counts = list(_counts(client, arguments))
            live.update(_table(counts, before, watched=True), refresh=True)
            before = {count.queue: count for count in counts}
            time.sleep(arguments.watch)


def _table(counts: list[Count], before: dict[str, Count], *, watched: bool) -> Any:
    """A table of rich's."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column('queue')
    for name in ('free', 'claimed', 'total', *(['change/s'] if watched else [])):
        table.add_column(name, justify='right')
    for count in counts:
        cells = [str(number) for number in (count.free, count.claimed, count.total)]
        if watched:
            rate = change(count, before.get(count.queue))
            cells.append('' if rate is None else f'{rate:+.1f}')
        table.add_row(Text(printable(count.queue)), *cells)
    return table
