"""Writes docs/performance.md and its charts from the results files: no figure is typed by hand.

What was asked for, and whether it was met, is written to targets.md beside the results.

python -m perf.report [--results perf/results]
"""

from __future__ import annotations

import argparse
import csv
import pathlib
from collections.abc import Sequence
from typing import Any

from perf import charts, results, tables, targets, weaknesses

DOCS = results.HERE.parent / 'docs'
KINDS = (
    'machine',
    'compare',
    'ceiling',
    'anatomy',
    'profiles',
    'connections',
    'fanout',
    'scale',
    'peers',
    'clients',
)

_HEAD = """# Performance

Written by `python -m perf.report` from the results of one run of `tox -e perf`; no figure was typed
by hand. [How it was measured, and how to repeat it](../perf/README.md). Figures of shared machines
move by a third from hour to hour: compare those of one run only. Python 3.11 and 3.13 cost the
same.

"""
_ASKED = """# What was asked for

Written by `python -m perf.report`, as [the page for readers](../../docs/performance.md) is.

"""
_IN_THE_WAY = """## What is in the way

Written by `python -m perf.profiles`, then `python -m perf.report`. Processor time of one operation,
the least of the rounds; the threads' shares are to a hundredth of a second of the whole run. The
counts are those of one operation: below one, several operations share a commit. An operation that
claims counts with its deletions.

"""
_CLIENTS = """## Clients for Python

Each is a program of its own on one core, the server is on another. All wait until a message is
safe: on the embedded store and NATS with an fsync for each acknowledgement, on RabbitMQ by
publisher confirms of persistent messages.

"""
_LOCUST = """## A realistic mix

`tox -e locust`: users who post, work and watch, over REST and WebSocket, with the pauses that
people and programs make. Times in ms, of a client that has all its users on one core. `push` is the
time from a post to its arrival; of a message that had to wait for a consumer, the wait included.

![The run](images/perf-locust.svg)

"""


def machine(found: dict[str, Any]) -> str:
    """What it was measured on."""
    libraries = ', '.join(f'{name} {number}' for name, number in found['libraries'].items())
    return (
        f'{found["processor"]}, {found["cores"]} cores, {found["memory_gb"]} GB, Linux '
        f'{found["kernel"]}, Python {found["python"]}; an fsync of 4 KiB takes '
        f'{found["fsync_us"]} µs. Measured {found["when"]} (commit {found["commit"]}, load before '
        f'{found["load_before"]}). {libraries}.\n'
    )


def compared(found: dict[str, Any]) -> str:
    """All operations, side by side."""
    cells = found['cells']
    parts = ['## Side by side\n']
    parts += ['![Posting](images/perf-post.svg)\n', '![Operations](images/perf-operations.svg)\n']
    parts += ['![Latency](images/perf-latency.svg)\n']
    for name in dict.fromkeys(row['cell'] for row in cells):
        rows = [row for row in cells if row['cell'] == name]
        parts.append(f'### {name}\n\n{tables.comparison(rows)}')
    return '\n'.join(parts)


def shares(figures: targets.Figures) -> str:
    """What the server needs, against what its parts alone would need."""
    lines = []
    for size in ('100 B', '4 KB'):
        commit = figures.part('bare SQLite, commits of 16', size)
        burst = figures.part('bare SQLite, commits of 256', size)
        falcon = figures.part('bare Falcon on pywsgi', size)
        frames = figures.part('bare frames on gevent, default envelope', size)
        several = figures.part('bare frames on gevent, 16 in flight', size)
        sums = (
            ('ours REST', 'Falcon on pywsgi + SQLite, commits of 16', falcon + commit),
            ('ours WebSocket JSON', 'frames + SQLite, commits of 16', frames + commit),
            (
                *('ours zaqar.v2 JSON, 16 in flight', 'frames + SQLite, commits of 256'),
                several + burst,
            ),
        )
        for variant, parts, least in sums:
            if not figures.has(variant, f'post 1, {size}'):
                continue
            used = figures.cell(variant, f'post 1, {size}', 'server_us')
            lines.append(
                [
                    f'{variant}, post of {size}',
                    parts,
                    f'{least:.0f} µs',
                    f'{used:.0f} µs',
                    f'{least / used:.0%}',
                ]
            )
    return tables.table(['', 'its ceiling', 'ceiling', 'measured', 'share'], lines)


def anatomy(rows: Sequence[dict[str, Any]]) -> str:
    """Step by step, and what would be left of a post if nothing but others' parts cost anything."""
    [frames, *own, commit] = [
        row['us'] for row in rows if row['way'] == rows[0]['way'] and not row.get('is_part')
    ]
    [sqlite] = [row['us'] for row in rows if row['way'] == rows[0]['way'] and row.get('is_part')]
    whole = frames + sum(own) + commit
    with_sqlite_alone = frames / (whole - commit + sqlite)
    with_nothing_else = frames / (frames + sqlite)
    return (
        f'## Where the time of a post goes\n\n{tables.anatomy(rows)}\n'
        f'An echo costs {frames / whole:.0%} of a post in the default envelope. With a commit that '
        f'costs no more than a bare one of SQLite it would be {with_sqlite_alone:.0%}, and '
        f'{with_nothing_else:.0%} if nothing else had to be done either: no JSON, no caller to '
        'know, no queue to find, no limit to check, no index, no hand-over to the thread that '
        'waits for the disk.\n'
    )


def locust(rows: Sequence[dict[str, str]]) -> str:
    """The statistics of the Locust run."""
    names = ('Request Count', 'Failure Count', 'Requests/s', '50%', '99%', '99.9%')
    body = [
        [
            f'{row["Type"]} {row["Name"]}'.strip(),
            *(f'{float(row[name]):,.0f}' for name in names if name != 'Requests/s'),
            f'{float(row["Requests/s"]):,.1f}',
        ]
        for row in rows
    ]
    head = ['', *(name for name in names if name != 'Requests/s'), 'a second']
    return _LOCUST + tables.table(head, body)


def table_of(file: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a table in CSV."""
    with file.open() as lines:
        return list(csv.DictReader(lines))


def page(found: dict[str, Any], description: dict[str, Any]) -> str:
    """The whole page."""
    figures = targets.Figures(found)
    parts = [_HEAD + machine(description)]
    parts.append('## Where others are better\n\n' + weaknesses.table(found))
    if 'compare' in found:
        parts.append(compared(found['compare']))
    if 'ceiling' in found:
        parts.append('## The parts alone\n\n' + tables.ceilings(found['ceiling']))
        if 'compare' in found:
            parts.append(shares(figures))
    if 'anatomy' in found:
        parts.append(anatomy(found['anatomy']))
    sections = {
        'fanout': ('Push', 'fanout', tables.fanout),
        'connections': ('Idle connections', 'connections', tables.connections),
        'scale': ('How cost grows', 'scale', tables.scale),
        'peers': ('Beside RabbitMQ and NATS', 'peers', tables.peers),
    }
    for kind, (title, picture, text) in sections.items():
        if kind in found:
            parts.append(
                f'## {title}\n\n![{title}](images/perf-{picture}.svg)\n\n{text(found[kind])}'
            )
    if 'clients' in found:
        parts.append(_CLIENTS + tables.clients(found['clients']))
    if 'locust_stats' in found:
        parts.append(locust(found['locust_stats']))
    return '\n'.join(parts)


def asked(found: dict[str, Any], description: dict[str, Any]) -> str:
    """What was asked of the server, and whether it was met: for those who work on it."""
    figures = targets.Figures(found)
    text = f'{_ASKED}{machine(description)}\n{targets.table(figures)}'
    if 'profiles' in found:
        text += f'\n{_IN_THE_WAY}{tables.profiles(found["profiles"])}'
        text += f'\n{targets.obstacles(found["profiles"])}'
        text += targets.floors(figures)
    return text


def write(directory: pathlib.Path, docs: pathlib.Path) -> pathlib.Path:
    """Write the page and its charts from the results in `directory`."""
    loaded = {kind: results.load(kind, directory) for kind in KINDS}
    found = {kind: document['found'] for kind, document in loaded.items() if document}
    if (directory / 'locust_stats.csv').exists():
        found['locust_stats'] = table_of(directory / 'locust_stats.csv')
        found['locust'] = table_of(directory / 'locust_stats_history.csv')
    if not found.keys() - {'machine'}:
        raise SystemExit(f'There are no results in {directory}: run python -m perf.run.')
    first = next(document for document in loaded.values() if document)
    charts.write(docs / 'images', found)
    (directory / 'targets.md').write_text(asked(found, first['machine']))
    file = docs / 'performance.md'
    file.write_text(page(found, first['machine']))
    return file


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--results', type=pathlib.Path, default=results.DIRECTORY)
    parser.add_argument('--docs', type=pathlib.Path, default=DOCS)
    options = parser.parse_args(argv)
    print(write(options.results, options.docs))


if __name__ == '__main__':
    main()
