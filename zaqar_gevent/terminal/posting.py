"""`post`: messages from the command line, from a file or from the standard input."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from zaqar_gevent.client import APIError, Client, Queue, Topic
from zaqar_gevent.terminal.display import Display, complain, refusal
from zaqar_gevent.terminal.interrupts import interrupted_later
from zaqar_gevent.terminal.queues import source_of
from zaqar_gevent.terminal.values import json_or_text

# A request may be 256 KiB long in the server's default configuration.
_BATCH_BYTES = 128 * 1024
_CHUNK = 256 * 1024
_LONGEST_LINE = 16 * 1024 * 1024

# The client raises these for a body that it cannot write.
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
# Statuses of a request that the server will never take: bad request, body too large.
_REFUSALS = (400, 413)


class _Line(NamedTuple):
    """A body as it was given, and which one it was, counted from 1."""

    number: int
    text: bytes


class _Unpostable(Exception):
    """A line that cannot be posted, and why."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Post in the order given; returns the exit status."""
    if arguments.bodies and arguments.file:
        complain('bodies are given either as arguments or in a file')
        return 2
    posting = _Posting(source_of(client, arguments), arguments, display)
    try:
        if arguments.bodies:
            given = map(os.fsencode, arguments.bodies)
            bodies = (_Line(number, text) for number, text in enumerate(given, 1))
            return posting.post_all(_grouped(bodies, arguments.batch))
        with _opened(arguments.file) as file, _progress(file) as advance:
            lines = _Lines(file)
            status = posting.post_all(_grouped(lines, arguments.batch), advance)
            if lines.empty:
                display.say(f'{lines.empty} empty lines left out.')
            return status
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        complain(f'{arguments.file}: {error.strerror}')
        return 1
    finally:
        display.say(f'{posting.count} posted.')


class _Posting:
    """Posts batches of lines, and remembers how far it came.

    count: how many messages have been posted.
    """

    def __init__(
        self, source: Queue | Topic, arguments: argparse.Namespace, display: Display
    ) -> None:
        self._source = source
        self._read: Callable[[str], Any] = str if arguments.text else json_or_text
        options = {
            'ttl': arguments.ttl,
            'delay': arguments.delay,
            'deliver_at': arguments.deliver_at,
            'attributes': dict(arguments.attribute) or None,
            'group': arguments.group,
        }
        self._options = {name: value for name, value in options.items() if value is not None}
        self._display = display
        self._noun = 'body' if arguments.bodies else 'line'
        self.count = 0

    def post_all(
        self, batches: Iterable[list[_Line]], advance: Callable[[int, int], None] | None = None
    ) -> int:
        """Post each batch in one request, up to the first line that cannot be posted.

        advance: called after each with how many bytes and how many messages it had.
        """
        try:
            for batch in batches:
                self._post(batch)
                if advance is not None:
                    advance(sum(len(line.text) + 1 for line in batch), len(batch))
        except _Unpostable as error:
            complain(f'{self._noun} {error.number} {error}; {self.count} were posted')
            return 1
        return 0

    def _post(self, batch: list[_Line]) -> None:
        bodies: list[Any] = []
        for line in batch:
            try:
                bodies.append(self._read(line.text.decode()))
            except UnicodeDecodeError:
                self._send_readable(batch, bodies)
                raise _Unpostable(line.number, 'is not UTF-8') from None
        self._send_readable(batch, bodies)

    def _send_readable(self, batch: list[_Line], bodies: list[Any]) -> None:
        """Post the bodies of the first lines of a batch, one by one if they are refused together.

        Nothing of a request that is refused is stored.
        """
        if not bodies:
            return
        try:
            self._send(bodies)
        except (APIError, *_UNWRITABLE) as error:
            if isinstance(error, APIError) and error.status not in _REFUSALS:
                raise
            if len(bodies) == 1:
                raise _Unpostable(batch[0].number, _told(error)) from None
            for line, body in zip(batch, bodies, strict=False):
                self._send_readable([line], [body])

    def _send(self, bodies: list[Any]) -> None:
        # An interruption waits for the answer, so that the count is right.
        with interrupted_later():
            message_ids = self._source.post(bodies, **self._options)
            self.count += len(message_ids)
            if not self._display.human:
                for message_id in message_ids:
                    self._display.show({'id': message_id}, '')


def _told(error: Exception) -> str:
    if isinstance(error, APIError):
        return f'was refused: {refusal(error)}'
    return f'cannot be sent: {error}'


class _Lines:
    """The lines of a file, in the pieces in which they become available.

    Empty ones are left out, and so is a byte order mark at the start.

    empty: how many were left out.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._count = 0
        self.empty = 0

    def __iter__(self) -> Iterator[_Line | None]:
        """Each line without its end; None where nothing more is there yet."""
        rest = b''
        while chunk := self._file.read1(_CHUNK):  # type: ignore[attr-defined]
            *lines, rest = (rest + chunk).split(b'\n')
            for line in lines:
                yield from self._told(line)
            yield None
            if len(rest) > _LONGEST_LINE:
                raise _Unpostable(self._count + 1, 'is longer than 16 MiB')
        if rest:
            yield from self._told(rest)

    def _told(self, line: bytes) -> Iterator[_Line]:
        self._count += 1
        text = line.removeprefix(codecs.BOM_UTF8) if self._count == 1 else line
        text = text.removesuffix(b'\r')
        self.empty += not text
        if text:
            yield _Line(self._count, text)


def _grouped(lines: Iterable[_Line | None], limit: int) -> Iterator[list[_Line]]:
    """Groups of at most `limit` lines; one ends where there is nothing more yet (None)."""
    group: list[_Line] = []
    size = 0
    for line in lines:
        added = 0 if line is None else len(line.text)
        if group and (line is None or len(group) == limit or size + added > _BATCH_BYTES):
            yield group
            group, size = [], 0
        if line is not None:
            group.append(line)
            size += added
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
