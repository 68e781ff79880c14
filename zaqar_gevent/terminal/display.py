"""Prints results of subcommands: for people on a terminal, as JSON lines elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zaqar_gevent.client import APIError

_LONGEST_REASON = 300
_CUT = '…'
# Columns whose cells are copied from a table, and so are never broken.
_NAMES = frozenset({'id', 'name', 'queue', 'topic', 'quota', 'target'})
# The other columns are broken, but to no less than this.
_NARROWEST = 12
# What rich adds to the widths of the columns: for each one, and at the ends of a line.
_COLUMN_MARGIN = 3
_TABLE_MARGIN = 2


class Display:
    """The standard output, and the standard error output for what is said aside.

    human: whether somebody looks at it.
    """

    def __init__(self, form: str) -> None:
        """form: `table` for people, `json`, or `auto`."""
        self.human = form == 'table' or (form == 'auto' and sys.stdout.isatty())

    def show(self, record: Mapping[str, Any], text: str, *, whole: bool = False) -> None:
        """Print a result at once: its record in a pipe, `text` on a terminal.

        whole: do not cut the text to the width of the terminal.
        """
        if self.human:
            print(printable(text) if whole else fitted(text), flush=True)
        else:
            print(json.dumps(record, ensure_ascii=False, default=str), flush=True)

    def show_table(
        self,
        records: Iterable[Mapping[str, Any]],
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
    ) -> None:
        """Print results together: each record in a pipe, a table on a terminal."""
        if not self.human:
            for record in records:
                self.show(record, '')
            return
        self._print_table(rows, columns)

    def show_fields(self, record: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        """Print one result: its record in a pipe, a line for each of `fields` on a terminal."""
        if not self.human:
            self.show(record, '')
            return
        self._print_table((name, text(value)) for name, value in fields.items())

    def _print_table(
        self, rows: Iterable[Sequence[str]], columns: Sequence[str] | None = None
    ) -> None:
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_header=columns is not None)
        cells = [[printable(cell) for cell in row] for row in rows]
        needed = _TABLE_MARGIN
        for number, column in enumerate(columns or ('', '')):
            widest = max([cell_len(column), *(cell_len(row[number]) for row in cells)])
            is_whole = column in _NAMES
            least = widest if is_whole else min(widest, _NARROWEST)
            needed += least + _COLUMN_MARGIN
            table.add_column(column, overflow='fold', no_wrap=is_whole, min_width=least)
        for row in cells:
            table.add_row(*map(Text, row))
        print_table(table, needed)

    def say(self, text: str) -> None:
        """Print what only people want to know, beside the results."""
        if self.human:
            print(printable(text), file=sys.stderr, flush=True)


def print_table(table: Any, needed: int) -> None:
    """Print a table of rich's, as wide as the terminal or as needed.

    A line that is too long for a terminal is continued in the next one, and is copied as one line.
    """
    from rich.console import Console

    width = max(Console().width, needed)
    Console(highlight=False, width=width).print(table)


def complain(reason: str) -> None:
    """Print one line about what went wrong."""
    print(f'zaqar-gevent: {printable(reason)}', file=sys.stderr, flush=True)


def refusal(error: APIError) -> str:
    """The server's reasons for refusing a request, without repetitions.

    A server of something else may answer with a page, of which only the beginning is told.
    """
    parts = dict.fromkeys(filter(None, (error.title, error.description)))
    told = ': '.join(parts)[:_LONGEST_REASON]
    status = str(error.status)
    return told if told.startswith(status) else f'{told} ({status})'


def printable(text: str) -> str:
    """The text in one line that can do nothing to a terminal: what is not printable is escaped."""
    return ''.join(
        one if one.isprintable() else one.encode('unicode_escape').decode() for one in text
    )


def fitted(text: str) -> str:
    """The text in one line of the terminal."""
    width = shutil.get_terminal_size().columns
    line = printable(text)
    return line if len(line) <= width else line[: width - 1] + _CUT


def compact(value: Any) -> str:
    """A body in one line: JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def text(value: Any) -> str:
    """A value for people: a text as it is, a list of texts with commas, all else as JSON."""
    if value is None:
        return ''
    if isinstance(value, list):
        return ', '.join(map(text, value))
    return value if isinstance(value, str) else compact(value)


def span(seconds: float) -> str:
    """A time for people, in at most five characters."""
    for unit, size in (('d', 86400), ('h', 3600), ('m', 60)):
        if seconds >= 2 * size:
            return f'{seconds / size:.0f}{unit}'
    return f'{seconds:.0f}s'
