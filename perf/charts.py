"""Figures as pictures, in SVG."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl

mpl.use('svg')

from matplotlib import pyplot
from matplotlib.axes import Axes

mpl.rcParams.update(
    {
        'axes.spines.right': False,
        'axes.spines.top': False,
        'figure.constrained_layout.use': True,
        'font.size': 9,
        'svg.fonttype': 'none',
        'svg.hashsalt': 'zaqar_gevent',
    }
)
UPSTREAM, OURS, OURS_REST, PEER = '#9a9a9a', '#1f6fb4', '#7fb2dd', '#c98b2b'
Rows = Sequence[dict[str, Any]]


def write(directory: pathlib.Path, found: dict[str, Any]) -> list[str]:
    """Draw everything that there are figures for; returns the names of the files."""
    directory.mkdir(parents=True, exist_ok=True)
    charts: dict[str, tuple[str, Callable[[Any], Any]]] = {
        'perf-post.svg': ('compare', lambda rows: post(rows['cells'])),
        'perf-operations.svg': ('compare', lambda rows: operations(rows['cells'])),
        'perf-latency.svg': ('compare', lambda rows: latency(rows['cells'])),
        'perf-scale.svg': ('scale', scale),
        'perf-connections.svg': ('connections', connections),
        'perf-fanout.svg': ('fanout', fanout),
        'perf-peers.svg': ('peers', peers),
        'perf-locust.svg': ('locust', locust),
    }
    written = []
    for name, (kind, draw) in charts.items():
        if kind in found:
            figure = draw(found[kind])
            figure.savefig(directory / name, metadata={'Date': None})
            pyplot.close(figure)
            written.append(name)
    return written


def colour(variant: str) -> str:
    if variant.startswith('upstream'):
        return UPSTREAM
    return OURS_REST if 'REST' in variant else OURS


def _bars(axes: Axes, rows: Rows, value: Callable[[dict[str, Any]], float], unit: str) -> None:
    names = [row['variant'] for row in rows]
    values = [value(row) for row in rows]
    bars = axes.barh(names, values, color=[colour(name) for name in names])
    axes.bar_label(bars, [f'{each:,.0f}' for each in values], padding=2, fontsize=8)
    axes.set_xlabel(unit)
    axes.margins(x=0.12)


def post(cells: Rows) -> Any:
    """One message posted at a time: throughput, and what it costs."""
    rows = [row for row in cells if row['cell'] == 'post 1, 100 B']
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.6 + 0.27 * len(rows)), sharey=True)
    _bars(left, rows, lambda row: row['rate']['median'], 'posts a second (more is better)')
    _bars(right, rows, lambda row: row['server_us']['median'], 'µs of server CPU each (less)')
    # One axis for both: the first variant stands on top.
    left.invert_yaxis()
    figure.suptitle('Posting one message of 100 B, 16 connections, one core')
    return figure


_SHOWN = (
    'upstream REST, gunicorn gevent',
    'upstream WebSocket JSON',
    'ours REST, gunicorn',
    'ours WebSocket JSON',
    'ours zaqar.v2 MsgPack, 16 in flight',
)
_SHADES = ('#c4c4c4', '#8a8a8a', '#a9cbe8', '#5a97cc', '#174f80')


def operations(cells: Rows) -> Any:
    """What each operation costs with each of a few variants."""
    names = list(dict.fromkeys(row['cell'] for row in cells if row['connections'] > 1))
    figure, axes = pyplot.subplots(figsize=(11, 4.6))
    width = 0.8 / len(_SHOWN)
    for number, (variant, shade) in enumerate(zip(_SHOWN, _SHADES, strict=True)):
        costs = {
            row['cell']: row['server_us']['median'] for row in cells if row['variant'] == variant
        }
        places = [at + number * width for at, name in enumerate(names) if name in costs]
        heights = [costs[name] for name in names if name in costs]
        axes.bar(places, heights, width, label=variant, color=shade)
    axes.set_yscale('log')
    axes.set_ylabel('µs of server CPU each (less is better)')
    axes.set_xticks([at + 0.32 for at in range(len(names))], names, rotation=25, ha='right')
    axes.legend(frameon=False, ncols=3, loc='lower center', bbox_to_anchor=(0.5, 1.0))
    return figure


def latency(cells: Rows) -> Any:
    """How long a post takes with all connections busy, and with one connection alone."""
    figure, both = pyplot.subplots(1, 2, figsize=(11, 4.4))
    for axes, number in zip(both, (16, 1), strict=True):
        rows = [
            row
            for row in cells
            if (row['operation'], row['size'], row['connections']) == ('post 1', '100 B', number)
        ]
        for at, row in enumerate(rows):
            late = row['latency']
            values = [late[name] for name in ('p50', 'p99', 'p999') if late[name]]
            axes.plot(values, [at] * len(values), color=colour(row['variant']), marker='|', ms=9)
        axes.set_yticks(range(len(rows)), [row['variant'] for row in rows])
        axes.set_xscale('log')
        axes.set_xlabel('ms: p50, p99, p99.9 (less is better)')
        axes.set_title('16 connections' if number > 1 else 'one connection alone')
        axes.invert_yaxis()
    return figure


def scale(rows: Rows) -> Any:
    """How cost grows along each axis."""
    axis_names = list(dict.fromkeys(row['along'] for row in rows))
    figure, several = pyplot.subplots(
        1, len(axis_names), figsize=(11, 4), squeeze=False, sharey=True
    )
    for axes, along in zip(several[0], axis_names, strict=True):
        here = [row for row in rows if row['along'] == along]
        for operation in dict.fromkeys(row['operation'] for row in here):
            points = [
                (row['at'], row['server_us']['median'])
                for row in here
                if row['operation'] == operation
            ]
            axes.plot(*zip(*points, strict=True), marker='o', ms=3, label=operation)
        if all(row['at'] for row in here):
            axes.set_xscale('log')
        axes.set_yscale('log')
        axes.set_xlabel(along)
        axes.legend(frameon=False, fontsize=7)
    several[0][0].set_ylabel('µs of server CPU each')
    return figure


def connections(rows: Rows) -> Any:
    """Memory of idle connections."""
    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    for kind in dict.fromkeys(row['kind'] for row in rows):
        here = [row for row in rows if row['kind'] == kind]
        shade = UPSTREAM if kind.startswith('upstream') else None
        dashes = '--' if kind.endswith('after a request') else '-'
        axes.plot(
            [row['connections'] for row in here],
            [row['each_kb'] for row in here],
            marker='o',
            label=kind,
            color=shade,
            linestyle=dashes,
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel('idle connections')
    axes.set_ylabel('KB of memory each')
    axes.legend(frameon=False)
    return figure


def fanout(rows: Rows) -> Any:
    """Deliveries a second, by the number of subscribers."""
    figure, axes = pyplot.subplots(figsize=(7, 3.4))
    for in_flight in sorted({row['in_flight'] for row in rows}):
        alike = [row for row in rows if row['in_flight'] == in_flight]
        axes.plot(
            *([row['subscribers'] for row in alike], [row['rate'] for row in alike]),
            marker='o',
            color=OURS if in_flight == 1 else OURS_REST,
            label='one post in flight' if in_flight == 1 else f'{in_flight} posts in flight',
        )
    axes.set_xscale('log')
    axes.set_xlabel('subscribers of one queue')
    axes.set_ylabel('deliveries a second')
    axes.legend(frameon=False)
    return figure


def peers(found: dict[str, Any]) -> Any:
    """Ours beside RabbitMQ and NATS."""
    rows = [row for row in found['rows'] if row['size'] == '100 B']
    figure, axes = pyplot.subplots(figsize=(9, 0.6 + 0.3 * len(rows)))
    names = [f'{row["peer"]}: {row["durability"]}, {row["in_flight"]} in flight' for row in rows]
    values = [row['rate']['median'] for row in rows]
    shades = [OURS if row['peer'].startswith('zaqar') else PEER for row in rows]
    bars = axes.barh(names, values, color=shades)
    axes.bar_label(bars, [f'{each:,.0f}' for each in values], padding=2, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel('confirmed posts of 100 B a second, 16 connections')
    axes.margins(x=0.12)
    return figure


def locust(rows: Rows) -> Any:
    """Requests a second and response times over a run of Locust's, from its history."""
    began = float(rows[0]['Timestamp'])
    seconds = [float(row['Timestamp']) - began for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.4))
    left.plot(seconds, [float(row['Requests/s']) for row in rows], color=OURS, label='requests')
    left.plot(seconds, [float(row['Failures/s']) for row in rows], color=PEER, label='failures')
    left.set_ylabel('a second')
    users = left.twinx()
    users.plot(*(seconds, [int(row['User Count']) for row in rows]), color=UPSTREAM, linestyle='--')
    users.set_ylabel('users (dashed)')
    users.set_ylim(bottom=0)
    for name, shade in zip(('50%', '95%', '99%'), _SHADES[2:], strict=True):
        known = [
            (at, float(row[name]))
            for at, row in zip(seconds, rows, strict=True)
            if row[name] != 'N/A'
        ]
        right.plot(*zip(*known, strict=True), color=shade, label=f'p{name[:-1]}')
    right.set_ylabel('response time, ms')
    for axes in (left, right):
        axes.set_xlabel('seconds')
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    return figure
