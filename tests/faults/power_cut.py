"""What a disk may hold after a power cut, rebuilt from a recording.

A write, a new size or a name survives for certain only once it has been synced: the content of a
file by a sync of the file, its name by a sync of the directory. All else may or may not be there,
of a write each sector by itself.
"""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.faults.recording import Operation

SECTOR = 512


class Change(NamedTuple):
    """A write at `offset`, or a new size."""

    offset: int
    data: bytes | None = None


class File:
    """The content of a file.

    synced: what survives. pending: what follows, in order.
    """

    def __init__(self) -> None:
        self.synced = bytearray()
        self.pending: list[Change] = []
        self.size = 0

    def change(self, change: Change) -> None:
        self.pending.append(change)
        if change.data is None:
            self.size = change.offset
        else:
            self.size = max(self.size, change.offset + len(change.data))

    def sync(self, count: int) -> None:
        """The first `count` of the pending changes survive from now on."""
        for change in self.pending[:count]:
            _apply(self.synced, change)
        del self.pending[:count]

    def survive(self, chance: random.Random | None) -> bytes:
        content = bytearray(self.synced)
        if chance is not None:
            share = chance.choice((0.1, 0.5, 0.9))
            for change in self.pending:
                for part in _tear(change, chance, share):
                    _apply(content, part)
        return bytes(content)


def _apply(content: bytearray, change: Change) -> None:
    if change.data is None:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    content.extend(bytes(max(0, change.offset - len(content))))
    content[change.offset : change.offset + len(change.data)] = change.data


def _tear(change: Change, chance: random.Random, share: float) -> Iterator[Change]:
    """The parts of a change that survive."""
    if change.data is None:
        if chance.random() < share:
            yield change
        return
    is_whole = chance.random() < 0.5
    survives = chance.random() < share
    start = 0
    while start < len(change.data):
        end = min(len(change.data), start + SECTOR - (change.offset + start) % SECTOR)
        if survives if is_whole else chance.random() < share:
            yield Change(change.offset + start, change.data[start:end])
        start = end


class Disk:
    """Directories and files below `root`, while operations are done to them."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = str(root)
        self._names: dict[str, File | None] = {self._root: None}
        self._synced: dict[str, File | None] = {self._root: None}
        # By directory: names that were made or removed, in order.
        self._pending: dict[str, list[tuple[str, File | None, bool]]] = {self._root: []}
        self._deleted: dict[str, File] = {}
        self._begun: dict[int, int] = {}

    def do(self, number: int, operation: Operation) -> None:
        """Do an operation, the `number`th of the recording."""
        path = operation.path
        if operation.kind == 'mkdir':
            self._pending[path] = []
            self._name(path, None)
        elif operation.kind == 'create':
            if path not in self._names:
                self._name(path, File())
        elif operation.kind == 'unlink':
            file = self._names.pop(path)
            assert file is not None
            self._deleted[path] = file
            self._pending[path.rpartition('/')[0]].append((path, file, False))
        elif path in self._pending:
            self._do_to_directory(number, operation)
        else:
            self._do_to_file(number, operation)

    def _name(self, path: str, file: File | None) -> None:
        self._names[path] = file
        self._pending[path.rpartition('/')[0]].append((path, file, True))

    def _do_to_directory(self, number: int, operation: Operation) -> None:
        pending = self._pending[operation.path]
        if operation.kind == 'begin':
            self._begun[number] = len(pending)
            return
        assert operation.kind == 'sync', operation
        count = self._begun.pop(operation.sync, len(pending))
        _rename(self._synced, pending[:count])
        del pending[:count]

    def _do_to_file(self, number: int, operation: Operation) -> None:
        found = self._deleted if operation.is_deleted else self._names
        file = found[operation.path]
        assert file is not None
        if operation.kind == 'write':
            offset = file.size if operation.offset < 0 else operation.offset
            file.change(Change(offset, operation.data))
        elif operation.kind == 'truncate':
            file.change(Change(operation.offset))
        elif operation.kind == 'begin':
            self._begun[number] = len(file.pending)
        else:
            assert operation.kind == 'sync', operation
            file.sync(self._begun.pop(operation.sync, len(file.pending)))

    def write_image(self, target: pathlib.Path, chance: random.Random | None) -> None:
        """Write what is there after a power cut now.

        chance: decides what survives of what has not been synced; None is for nothing.
        """
        names = dict(self._synced)
        if chance is not None:
            for pending in self._pending.values():
                _rename(names, pending[: chance.randint(0, len(pending))])
        for path in sorted(names):
            relative = path.removeprefix(self._root).lstrip('/')
            place = target / relative
            file = names[path]
            if not place.parent.is_dir():
                # The name of its directory has not survived.
                continue
            if file is None:
                place.mkdir(exist_ok=True)
            elif path.endswith('-shm') and chance is not None:
                place.write_bytes(chance.randbytes(32768))
            else:
                place.write_bytes(file.survive(chance))


def _rename(
    names: dict[str, File | None], changes: Iterable[tuple[str, File | None, bool]]
) -> None:
    for path, file, is_made in changes:
        if is_made:
            names[path] = file
        else:
            names.pop(path, None)
