"""Damage to pages of a closed SQLite file, as a bad disk does it."""

from __future__ import annotations

import pathlib
import sqlite3
import struct

PAGE = 4096
INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13


def leaves(path: pathlib.Path, name: str) -> list[int]:
    """The leaf pages of a table or an index, in the order of their entries."""
    with sqlite3.connect(f'file:{path}?mode=ro', uri=True) as connection:
        [(root,)] = connection.execute('SELECT rootpage FROM sqlite_master WHERE name = ?', (name,))
    connection.close()
    return _descend(path.read_bytes(), root)


def _descend(content: bytes, number: int) -> list[int]:
    start = (number - 1) * PAGE
    head = start + (100 if number == 1 else 0)
    kind, count = content[head], struct.unpack_from('>H', content, head + 3)[0]
    if kind in (LEAF_INDEX, LEAF_TABLE):
        return [number]
    cells = struct.unpack_from(f'>{count}H', content, head + 12)
    children = [struct.unpack_from('>I', content, start + cell)[0] for cell in cells]
    children.append(struct.unpack_from('>I', content, head + 8)[0])
    return [leaf for child in children for leaf in _descend(content, child)]


def page_of(path: pathlib.Path, table: str, text: str) -> int:
    """The leaf page in which `text` is, and which has a page of the same table on either side."""
    content = path.read_bytes()
    pages = leaves(path, table)
    [found] = [page for page in pages if text.encode() in content[(page - 1) * PAGE : page * PAGE]]
    assert found not in (pages[0], pages[-1])
    return found


def destroy(path: pathlib.Path, page: int) -> None:
    """Overwrite a page with what is none."""
    with path.open('r+b') as file:
        file.seek((page - 1) * PAGE)
        file.write(b'\xa5' * PAGE)
