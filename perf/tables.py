"""Figures as text: Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

# A client, with the Redis beside it, that is busier than this may be what was measured.
BUSY_CLIENT = 0.9


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its first column to the left and the others to the right."""
    lines = [f'| {" | ".join(head)} |', '|---|' + '---:|' * (len(head) - 1)]
    lines += [f'| {" | ".join(row)} |' for row in rows]
    return '\n'.join(lines) + '\n'


def count(value: float) -> str:
    """A number of things, its thousands apart."""
    return f'{value:,.0f}' if value >= 10 else f'{value:.2g}'


def milliseconds(value: float | None) -> str:
    return '' if value is None else f'{value:.2f} ms' if value < 10 else f'{value:.0f} ms'


def times(value: float) -> str:
    """How many times as much."""
    return f'{value:.1f}x' if value < 10 else f'{value:.0f}x'


def size(value: float) -> str:
    """A number of bytes."""
    return f'{value:,.0f} B' if value < 10_000 else f'{value / 1000:,.0f} KB'


def comparison(rows: Sequence[dict[str, Any]]) -> str:
    """One operation, a line for each variant."""
    head = ['', 'store', 'a second', '±', 'server CPU', '±', 'Redis CPU', 'p50', 'p99', 'p99.9']
    head += ['bytes', 'connections', 'client busy']
    return table(head, [_compared(row) for row in rows])


def _compared(row: dict[str, Any]) -> list[str]:
    late = row['latency']
    share = row['client_share']['median']
    return [
        row['variant'],
        row['store'],
        count(row['rate']['median']),
        f'{row["rate"]["spread"] / 2:.0%}',
        f'{row["server_us"]["median"]:,.0f} µs',
        f'{row["server_us"]["spread"] / 2:.0%}',
        f'{row["store_us"]["median"]:,.0f} µs' if row['store_us']['median'] else '',
        *(milliseconds(late[name]) for name in ('p50', 'p99', 'p999')),
        size(row['bytes']['median']),
        count(row['opened']['median']),
        f'{share:.0%}' + (' !' if share > BUSY_CLIENT else ''),
    ]


def ceilings(rows: Sequence[dict[str, Any]]) -> str:
    """The parts alone."""
    return table(
        ['part', 'body', 'a second', '±', 'CPU', '±'],
        [
            [
                row['part'],
                row['size'],
                count(row['rate']['median']),
                f'{row["rate"]["spread"] / 2:.0%}',
                f'{row["server_us"]["median"]:.1f} µs',
                f'{row["server_us"]["spread"] / 2:.0%}',
            ]
            for row in rows
        ],
    )


def anatomy(rows: Sequence[dict[str, Any]]) -> str:
    """The steps of a post, way by way."""
    texts = []
    for way in dict.fromkeys(row['way'] for row in rows):
        here = [row for row in rows if row['way'] == way]
        whole = sum(row['us'] for row in here if not row.get('is_part'))
        lines = [
            [
                f'*{row["step"]}*' if row.get('is_part') else row['step'],
                f'{row["us"]:.1f} µs',
                f'{row["us"] / whole:.0%}',
            ]
            for row in here
        ]
        texts.append(table([way, 'CPU', 'share'], [*lines, ['all', f'{whole:.1f} µs', '']]))
    return '\n'.join(texts)


def profiles(found: dict[str, Any]) -> str:
    """What operations cost, part by part, and what they do."""
    rows = found['cases']
    head = [
        *('operation', 'store', 'asked', 'CPU', 'serving thread', 'in the system'),
        *('other threads', 'in the system', 'Redis'),
    ]
    costs = [
        [
            row['case'],
            row['store'],
            '' if row['asked_us'] is None else f'{row["asked_us"]:,.0f} µs',
            *(
                f'{row[name]:,.0f} µs'
                for name in (
                    *('server_us', 'serving_user', 'serving_system', 'other_user', 'other_system'),
                )
            ),
            f'{row["store_us"]:,.0f} µs' if row['store_us'] else '',
        ]
        for row in rows
    ]
    counted = [row for row in rows if 'commits' in row]
    does = [
        [
            row['case'],
            *(
                f'{row[name]:,g}'
                for name in (
                    *('serving_calls', 'serving_c_calls', 'writing_calls', 'writing_c_calls'),
                    *('statements', 'commits', 'pages'),
                )
            ),
        ]
        for row in counted
    ]
    syncs = [
        [str(row['pages']), f'{row["overwritten_us"]:.0f} µs', f'{row["appended_us"]:.0f} µs']
        for row in found['syncs']
    ]
    counts_head = [
        *('operation, embedded store', 'Python calls, serving', 'into C'),
        *('Python calls, writing', 'into C', 'statements and triggers', 'commits', 'pages'),
    ]
    syncs_head = ['fdatasync of so many pages', 'written over', 'appended']
    checks = [
        [row['size'], f'{row["json_us"]:.1f} µs', f'{row["msgpack_us"]:.1f} µs']
        for row in found['checks']
    ]
    checks_head = ['check of a post of', 'JSON', 'MsgPack']
    parts = ((head, costs), (counts_head, does), (syncs_head, syncs), (checks_head, checks))
    return '\n'.join(table(*part) for part in parts)


def connections(rows: Sequence[dict[str, Any]]) -> str:
    """Idle connections."""
    return table(
        ['connections', 'number', 'memory of each', 'opened a second', 'CPU of opening one'],
        [
            [
                row['kind'],
                f'{row["connections"]:,}',
                f'{row["each_kb"]:.1f} KB',
                count(row['opened_per_second']),
                f'{row["server_us"]:,.0f} µs',
            ]
            for row in rows
        ],
    )


def fanout(rows: Sequence[dict[str, Any]]) -> str:
    """Pushes to many."""
    return table(
        [
            *('subscribers', 'posts in flight', 'deliveries a second', 'a second of CPU'),
            *('CPU of each', 'p50', 'p99', 'client busy'),
        ],
        [
            [
                f'{row["subscribers"]:,}',
                f'{row["in_flight"]}',
                count(row['rate']),
                count(row['rate_of_processor']),
                f'{row["server_us"]:.1f} µs',
                milliseconds(row['latency']['p50']),
                milliseconds(row['latency']['p99']),
                f'{row["client_share"]:.0%}',
            ]
            for row in rows
        ],
    )


def scale(rows: Sequence[dict[str, Any]]) -> str:
    """How cost grows: a line for each operation along each axis, a column for each size."""
    texts = []
    for along in dict.fromkeys(row['along'] for row in rows):
        here = [row for row in rows if row['along'] == along]
        sizes = sorted({row['at'] for row in here})
        lines = []
        for operation in dict.fromkeys(row['operation'] for row in here):
            costs = {
                row['at']: row['server_us']['median']
                for row in here
                if row['operation'] == operation
            }
            last = [costs[at] for at in sizes if at in costs]
            cells = [f'{costs[at]:,.0f} µs' if at in costs else '' for at in sizes]
            lines.append([operation, *cells, times(last[-1] / last[0])])
        texts.append(table([along, *(f'{at:,}' for at in sizes), 'last to first'], lines))
    return '\n'.join(texts)


def clients(found: dict[str, Any]) -> str:
    """What clients reach and cost, and what it costs to import them."""
    rows = [
        [
            row['client'],
            row['what'],
            count(row['rate']['median']),
            f'{row["rate"]["spread"] / 2:.0%}',
            f'{row["client_us"]["median"]:,.0f} µs',
        ]
        for row in found['rows']
    ]
    imports = [
        [
            f'`{row["module"]}`',
            f'{row["ms"]["median"]:,.0f} ms',
            f'{row["bytes"]["median"] / 1e6:,.0f} MB',
        ]
        for row in found['imports']
    ]
    head = ['client', 'messages', 'a second', '±', 'client CPU a message']
    return f'{table(head, rows)}\n{table(["import", "CPU", "memory of the program"], imports)}'


def peers(found: dict[str, Any]) -> str:
    """Confirmed posts, beside what the confirmation means."""
    head = ['', 'a confirmed post is', 'body', 'in flight', 'a second', '±', 'server CPU']
    head += ['p50', 'p99', 'p99.9', 'bytes', 'client busy']
    rows = [
        [
            row['peer'],
            row['durability'],
            row['size'],
            str(row['in_flight']),
            count(row['rate']['median']),
            f'{row["rate"]["spread"] / 2:.0%}',
            f'{row["server_us"]["median"]:,.0f} µs',
            *(milliseconds(row['latency'][name]) for name in ('p50', 'p99', 'p999')),
            size(row['bytes']['median']),
            f'{row["client_share"]["median"]:.0%}'
            + (' !' if row['client_share']['median'] > BUSY_CLIENT else ''),
        ]
        for row in found['rows']
    ]
    guarantees = found['guarantees']
    return f'{table(head, rows)}\n{table(guarantees["head"], guarantees["rows"])}'
