"""Where somebody else is faster, smaller or steadier: told from the figures, to hide none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perf import tables

# Differences below this are within what a run can tell.
NOTABLE = 1.05
GROWN = 1.5

# The last two are ways of ours, of which the first is meant to be the faster one.
_PAIRS = (
    ('ours REST, gunicorn', 'upstream REST, gunicorn sync'),
    ('ours REST, gunicorn', 'upstream REST, gunicorn gevent'),
    ('ours WebSocket JSON', 'upstream WebSocket JSON'),
    ('ours WebSocket MsgPack', 'upstream WebSocket MsgPack'),
    ('ours REST on Redis', 'upstream REST, gunicorn gevent'),
    ('ours WebSocket JSON on Redis', 'upstream WebSocket JSON'),
    ('ours zaqar.v2 JSON', 'ours WebSocket JSON'),
    ('ours zaqar.v2 MsgPack', 'ours zaqar.v2 JSON'),
)
# What is better when it is less, and in which unit; the first is better when it is more.
_LESS = (('server_us', 'µs of CPU'), ('bytes', 'bytes'))


def table(found: dict[str, Any]) -> str:
    """A list in Markdown; says so where nothing was found."""
    lines = [
        *_compared(found.get('compare', {}).get('cells', ())),
        *_connections(found.get('connections', ())),
        *_peers(found.get('peers', {}).get('rows', ())),
        *_grown(found.get('scale', ())),
    ]
    if not lines:
        return 'In this run, in nothing that was measured.\n'
    return '\n'.join(f'- {line}' for line in lines) + '\n'


def _compared(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    at = {(row['variant'], row['cell']): row for row in cells}
    for name in dict.fromkeys(row['cell'] for row in cells):
        for ours, theirs in _PAIRS:
            if (ours, name) in at and (theirs, name) in at:
                mine, other = at[ours, name], at[theirs, name]
                yield from _pair(name, mine, other)


def _pair(cell: str, mine: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    names = f'**{cell}**, {mine["variant"]} against {other["variant"]}'
    rate, better = mine['rate']['median'], other['rate']['median']
    if better > rate * NOTABLE:
        yield f'{names}: {tables.count(rate)} a second against {tables.count(better)}'
    for figure, unit in _LESS:
        used, less = mine[figure]['median'], other[figure]['median']
        if used > less * NOTABLE:
            yield f'{names}: {used:,.0f} {unit} against {less:,.0f}'
    late, sooner = mine['latency']['p99'], other['latency']['p99']
    if late and sooner and late > sooner * NOTABLE:
        yield (f'{names}: p99 {tables.milliseconds(late)} against {tables.milliseconds(sooner)}')


def _connections(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for state in ('just opened', 'after a request'):
        mine = [row for row in rows if row['kind'] == f'ours, {state}']
        others = {row['connections']: row for row in rows if row['kind'] == f'upstream, {state}'}
        for row in mine:
            other = others.get(row['connections'])
            if other and row['each_kb'] > other['each_kb'] * NOTABLE:
                yield (
                    f'**{row["connections"]:,} idle connections**, {state}: {row["each_kb"]:.1f} '
                    f"KB each against upstream's {other['each_kb']:.1f} KB"
                )


def _peers(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row['peer'].startswith('zaqar'):
            continue
        best = max(
            (
                mine
                for mine in rows
                if mine['peer'].startswith('zaqar')
                and (mine['size'], mine['in_flight']) == (row['size'], row['in_flight'])
                and (mine['is_fsynced'] or not row['is_fsynced'])
            ),
            key=lambda mine: mine['rate']['median'],
            default=None,
        )
        if best and row['rate']['median'] > best['rate']['median'] * NOTABLE:
            yield (
                f'**posts of {row["size"]}, {row["in_flight"]} in flight**: {row["peer"]} '
                f'({row["durability"]}) takes {tables.count(row["rate"]["median"])} a second, '
                f'{best["peer"]} ({best["durability"]}) {tables.count(best["rate"]["median"])}'
            )


def _grown(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for along, operation in dict.fromkeys((row['along'], row['operation']) for row in rows):
        costs = [
            (row['at'], row['server_us']['median'])
            for row in rows
            if (row['along'], row['operation']) == (along, operation)
        ]
        (least, first), (most, last) = min(costs), max(costs)
        if last > first * GROWN:
            yield (
                f'**{operation}** grows with the number of {along}: {first:,.0f} µs at '
                f'{least:,}, {last:,.0f} µs at {most:,}'
            )
