"""`post`: messages from the command line, from a file or from the standard input."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from zaqar_gevent.client import Client, Queue
from zaqar_gevent.terminal.display import Display, complain

# A request may be 256 KiB long in the server's default configuration.
_BATCH_BYTES = 128 * 1024
_CHUNK = 256 * 1024
_LONGEST_LINE = 16 * 1024 * 1024


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Post in the order given; returns the exit status."""
    if arguments.bodies and arguments.file:
        complain('bodies are given either as arguments or in a file')
        return 2
    posting = _Posting(client.queue(arguments.queue), arguments, display)
    try:
        if arguments.bodies:
            return posting.post_all(_grouped(map(os.fsencode, arguments.bodies), arguments.batch))
        with _opened(arguments.file) as file, _progress(file) as advance:
            return posting.post_all(_batches(file, arguments.batch), advance)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        complain(f'{arguments.file}: {error.strerror}')
        return 1
    finally:
        display.say(f'{posting.count} posted.')


def body_of(text: str) -> Any:
    """What a text stands for: what it is in JSON, or itself."""
    try:
        return json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError):
        return text


def _reject(constant: str) -> Any:
    raise ValueError(f'{constant} is not JSON')


class _Posting:
    """Posts batches of lines, and remembers how far it came.

    count: how many messages have been posted.
    """

    def __init__(self, queue: Queue, arguments: argparse.Namespace, display: Display) -> None:
        self._queue = queue
        self._read: Callable[[str], Any] = str if arguments.text else body_of
        options = {'ttl': arguments.ttl, 'delay': arguments.delay}
        self._options = {name: value for name, value in options.items() if value is not None}
        self._display = display
        self.count = 0

    def post_all(
        self, batches: Iterable[list[bytes]], advance: Callable[[int, int], None] | None = None
    ) -> int:
        """Post each batch in one request.

        advance: called after each with how many bytes and how many messages it had.
        """
        try:
            for batch in batches:
                self._post(batch)
                if advance is not None:
                    advance(sum(map(len, batch)) + len(batch), len(batch))
        except UnicodeDecodeError:
            complain(f'what follows the first {self.count} is not UTF-8')
            return 1
        except (TypeError, ValueError, OverflowError) as error:
            complain(f'what follows the first {self.count} cannot be sent: {error}')
            return 1
        return 0

    def _post(self, batch: list[bytes]) -> None:
        bodies = [self._read(line.decode()) for line in batch]
        for message_id in self._queue.post(bodies, **self._options):
            self.count += 1
            if not self._display.human:
                self._display.show({'id': message_id}, '')


def _batches(file: BinaryIO, limit: int) -> Iterator[list[bytes]]:
    """What lines have anything in them, as they become available, at most `limit` at once."""
    rest = b''
    while chunk := file.read1(_CHUNK):  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b'\n')
        yield from _grouped(lines, limit)
        if len(rest) > _LONGEST_LINE:
            raise ValueError('a line is longer than 16 MiB')
    yield from _grouped([rest], limit)


def _grouped(lines: Iterable[bytes], limit: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for line in filter(None, (line.rstrip(b'\r') for line in lines)):
        if group and (len(group) == limit or size + len(line) > _BATCH_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


@contextlib.contextmanager
def _opened(name: str | None) -> Iterator[BinaryIO]:
    if name in (None, '-'):
        yield sys.stdin.buffer
    else:
        with open(str(name), 'rb') as file:
            yield file


@contextlib.contextmanager
def _progress(file: BinaryIO) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on the terminal, where there is one and nobody types at it."""
    if not sys.stderr.isatty() or file.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn('{task.fields[count]} posted'),
        BarColumn(),
        TextColumn('{task.percentage:>3.0f}%' if _size(file) else ''),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task('', total=_size(file), count=0)
        posted = 0

        def advance(size: int, count: int) -> None:
            nonlocal posted
            posted += count
            progress.update(task, advance=size, count=posted)

        yield advance


def _size(file: BinaryIO) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
