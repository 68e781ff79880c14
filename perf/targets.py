"""What was asked of the server, and whether a run meets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perf import tables

POST = 'post 1, 100 B'
# Rounds differ by as much.
_SAME = 1.05


class Figures:
    """The results of all programs, for looking up."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._found = found
        self._cells = {
            (row['variant'], row['cell']): row for row in found.get('compare', {}).get('cells', ())
        }

    def cell(self, variant: str, cell: str, figure: str) -> float:
        """A median of `perf.compare`; raises KeyError where it was not measured."""
        return float(self._cells[variant, cell][figure]['median'])

    def has(self, variant: str, cell: str) -> bool:
        return (variant, cell) in self._cells

    @property
    def cells(self) -> Sequence[str]:
        """The names of the cells of `perf.compare`; raises KeyError where it was not run."""
        if not self._cells:
            raise KeyError('compare')
        return list(dict.fromkeys(cell for _, cell in self._cells))

    @property
    def usual_extra_bytes(self) -> int:
        """By how much a post over REST from python-zaqarclient is longer than the one measured."""
        return int(self._found['compare']['usual_extra_bytes'])

    def part(self, name: str, size: str = '100 B') -> float:
        """Processor time of a bare part, in microseconds; raises KeyError likewise."""
        for row in self._found.get('ceiling', ()):
            if (row['part'], row['size']) == (name, size):
                return float(row['server_us']['median'])
        raise KeyError(name)

    def rows(self, kind: str) -> Sequence[dict[str, Any]]:
        if kind not in self._found:
            raise KeyError(kind)
        rows: Sequence[dict[str, Any]] = self._found[kind]
        return rows


class Verdict(NamedTuple):
    """What was measured, and whether that is enough; None where nothing was asked."""

    text: str
    is_met: bool | None


class Target(NamedTuple):
    """What is asked for, and how to tell."""

    what: str
    asked: str
    judge: Callable[[Figures], Verdict]


def ratio(
    ours: str, upstream: str, cell: str, least: float, most_us: float = float('inf')
) -> Callable[[Figures], Verdict]:
    """At least so many times upstream's throughput, and at most so much processor time."""

    def judge(figures: Figures) -> Verdict:
        mine, theirs = (figures.cell(name, cell, 'rate') for name in (ours, upstream))
        used, used_theirs = (figures.cell(name, cell, 'server_us') for name in (ours, upstream))
        text = (
            f'{tables.times(mine / theirs)}: {tables.count(mine)}/s against '
            f'{tables.count(theirs)}/s; CPU {used:,.0f} µs against {used_theirs:,.0f} µs'
        )
        return Verdict(text, mine / theirs >= least and used <= most_us)

    return judge


def at_most(variant: str, cell: str, most_us: float) -> Callable[[Figures], Verdict]:
    """At most so much processor time."""

    def judge(figures: Figures) -> Verdict:
        used = figures.cell(variant, cell, 'server_us')
        return Verdict(f'{used:,.0f} µs', used <= most_us)

    return judge


def alone(figures: Figures) -> Verdict:
    cell = f'{POST}, one connection'
    used = figures.cell('ours WebSocket JSON', cell, 'server_us')
    passed = 1e3 / figures.cell('ours WebSocket JSON', cell, 'rate')
    return Verdict(f'{used:,.0f} µs, {passed:.2f} ms', used <= 180 and passed <= 0.30)


def msgpack_against_json(figures: Figures) -> Verdict:
    """Where it takes more processor time, beyond what the rounds differ by."""
    dearer = []
    for cell in figures.cells:
        for protocol in ('WebSocket', 'zaqar.v2'):
            json, msgpack = (f'ours {protocol} {encoding}' for encoding in ('JSON', 'MsgPack'))
            if not (figures.has(json, cell) and figures.has(msgpack, cell)):
                continue
            times = figures.cell(msgpack, cell, 'server_us') / figures.cell(json, cell, 'server_us')
            if times > _SAME:
                dearer.append(f'{cell} {times:.2f}x ({protocol})')
    return Verdict(', '.join(dearer) or 'nowhere', not dearer)


def against_rest(figures: Figures) -> Verdict:
    ours, rest = 'ours zaqar.v2 MsgPack, 16 in flight', 'ours REST'
    used, used_by_rest, plain = (
        figures.cell(name, POST, 'server_us') for name in (ours, rest, 'ours WebSocket JSON')
    )
    sent, sent_by_rest = (figures.cell(name, POST, 'bytes') for name in (ours, rest))
    cpu, size = used_by_rest / used, (sent_by_rest + figures.usual_extra_bytes) / sent
    text = (
        f'{cpu:.1f}x less CPU and {size:.1f}x fewer bytes than with python-zaqarclient '
        f'({sent_by_rest / sent:.1f}x, if it sent no header that it could leave out) for zaqar.v2 '
        f'in MsgPack, 16 in flight; {used_by_rest / plain:.1f}x less CPU in the default envelope'
    )
    return Verdict(text, cpu >= 4 and size >= 3)


def of_echo(figures: Figures) -> Verdict:
    echo = figures.part('echo, engine websockets, default envelope')
    post = figures.cell('ours WebSocket JSON', POST, 'server_us')
    why = '../../docs/performance.md#where-the-time-of-a-post-goes'
    text = f'{echo / post:.0%}: {echo:.0f} µs of {post:.0f} µs; [why]({why})'
    return Verdict(text, echo / post >= 0.5)


def on_redis(figures: Figures) -> Verdict:
    judged = ratio('ours WebSocket JSON on Redis', 'upstream WebSocket JSON', POST, 0)(figures)
    return Verdict(judged.text, None)


def fanout(figures: Figures) -> Verdict:
    thousand = [row for row in figures.rows('fanout') if row['subscribers'] == 1000]
    costs = {row['in_flight']: row['server_us'] for row in thousand}
    if 1 not in costs:
        raise KeyError('fanout')
    others = [f'{us:.1f} µs with {number} posts in flight' for number, us in costs.items()]
    return Verdict(f'{costs[1]:.1f} µs; {", ".join(others[1:])}'.rstrip('; '), costs[1] <= 11)


def opening(figures: Figures) -> Verdict:
    costs = [
        row['server_us']
        for row in figures.rows('connections')
        if row['kind'] == 'ours, just opened'
    ]
    if not costs:
        raise KeyError('connections')
    return Verdict(f'{min(costs):,.0f} to {max(costs):,.0f} µs', max(costs) <= 250)


def idle(figures: Figures) -> Verdict:
    each = [row for row in figures.rows('connections') if row['kind'].startswith('ours, ')]
    most = max(row['each_kb'] for row in each)
    many = max(row['connections'] for row in each)
    return Verdict(f'at most {most:.1f} KB, with up to {many:,} connections', most <= 18)


def growth(figures: Figures) -> Verdict:
    texts, worst = [], 0.0
    for operation in ('list 10', 'list 10 from the middle', 'claim 10 + release'):
        rows = [
            (row['at'], row['server_us']['median'])
            for row in figures.rows('scale')
            if row['along'] == 'messages in the queue' and row['operation'] == operation
        ]
        (least, first), (most, last) = min(rows), max(rows)
        worst = max(worst, last / first)
        texts.append(f'{operation} {last / first:.2f}x')
    return Verdict(f'{", ".join(texts)} ({least:,} to {most:,})', worst <= 1.5)


UPSTREAM = 'upstream WebSocket JSON'
_NATIVE = 'ours WebSocket JSON on Redis, native'
TARGETS = [
    Target(
        'WebSocket `message_post`, 16 connections',
        '>= 17x, <= 45 µs',
        ratio('ours WebSocket JSON', UPSTREAM, POST, 17, 45),
    ),
    Target(
        'the same, `zaqar.v2`, 16 in flight each',
        '>= 35x, <= 24 µs',
        ratio('ours zaqar.v2 JSON, 16 in flight', UPSTREAM, POST, 35, 24),
    ),
    Target(
        'WebSocket `message_list` of 10',
        '>= 20x',
        ratio('ours WebSocket JSON', UPSTREAM, 'list 10, 100 B', 20),
    ),
    Target(
        'claim 10 + delete 10 together',
        '>= 15x',
        ratio('ours WebSocket JSON', UPSTREAM, 'claim 10 + delete 10, 100 B', 15),
    ),
    Target(
        'claim 10 + delete each',
        '>= 15x',
        ratio('ours WebSocket JSON', UPSTREAM, 'claim 10 + delete each, 100 B', 15),
    ),
    Target(
        'REST post under gunicorn',
        '>= 12x',
        ratio('ours REST, gunicorn', 'upstream REST, gunicorn gevent', POST, 12),
    ),
    Target('REST post', '<= 85 µs', at_most('ours REST', POST, 85)),
    Target(
        'queue get, default envelope', '<= 45 µs', at_most('ours WebSocket JSON', 'queue get', 45)
    ),
    Target('post 4 KB', '<= 70 µs', at_most('ours WebSocket JSON', 'post 1, 4 KB', 70)),
    Target(
        'the same, `zaqar.v2`, 16 in flight each',
        '<= 55 µs',
        at_most('ours zaqar.v2 JSON, 16 in flight', 'post 1, 4 KB', 55),
    ),
    Target('list of 10 of 4 KB', '<= 130 µs', at_most('ours WebSocket JSON', 'list 10, 4 KB', 130)),
    Target('post, one connection, one in flight', '<= 180 µs, <= 0.30 ms', alone),
    Target('MsgPack against JSON', 'never dearer', msgpack_against_json),
    Target('WebSocket against our own REST, post', '>= 4x CPU, >= 3x bytes', against_rest),
    Target('WebSocket post as a share of an echo by the same engine', '>= 50 %', of_echo),
    Target("WebSocket post on Redis, upstream's driver on both", 'measured', on_redis),
    Target('fan-out 1 to 1,000', '<= 11 µs each', fanout),
    Target('opening a WebSocket', '<= 250 µs', opening),
    Target('idle connection', '<= 18 KB', idle),
    Target('list and claim, a million messages against a thousand', '<= 1.5x', growth),
]


def obstacles(found: dict[str, Any]) -> str:
    """What is in the way of each target for processor time that `perf.profiles` saw missed."""
    sync = found['syncs'][0]['overwritten_us']
    lines = []
    for row in found['cases']:
        asked = row['asked_us']
        if asked is None or row['server_us'] <= asked:
            continue
        text = (
            f'- **{row["case"]}** takes {row["server_us"]:,.0f} µs, asked for {asked:,.0f}: '
            f'{row["serving_user"]:,.0f} µs are {row["serving_calls"]:,.0f} Python calls and '
            f'{row["serving_c_calls"]:,.0f} calls into C in the thread that serves, '
            f'{row["serving_system"]:,.0f} µs its system calls'
        )
        if row['commits']:
            commit = row['other_user'] + row['other_system']
            text += (
                f'; {commit:,.0f} µs are the thread that commits, {row["commits"] * sync:,.0f} µs '
                f'of that the syncs ({row["commits"]:g} commits with {row["pages"]:g} pages for '
                f'each operation)'
            )
        lines.append(text + '.\n')
    return ''.join(lines)


def floors(figures: Figures) -> str:
    """Of ratios that are asked for: how much of the time that they leave pings alone would take."""
    lines = []
    for ours, theirs, cell, requests in (
        (_NATIVE, 'ours WebSocket JSON on Redis', 'list 10, 100 B', 1),
        (_NATIVE, 'ours WebSocket JSON on Redis', 'claim 10 + delete 10, 100 B', 2),
        ('ours WebSocket JSON', UPSTREAM, 'claim 10 + delete 10, 100 B', 2),
        ('ours WebSocket JSON', UPSTREAM, 'claim 10 + delete each, 100 B', 11),
    ):
        if not all(figures.has(*each) for each in ((ours, cell), (theirs, cell), (ours, 'ping'))):
            continue
        used, reference = (figures.cell(name, cell, 'server_us') for name in (ours, theirs))
        ping = figures.cell(ours, 'ping', 'server_us')
        lines.append(
            f'- **{cell}**, {ours}, takes {used:,.0f} µs, {reference / used:.1f} times less than '
            f'{theirs}. 15 times less would be {reference / 15:,.0f} µs; as many pings '
            f'({requests}) take {requests * ping:,.0f} µs.\n'
        )
    return ''.join(lines)


def table(figures: Figures) -> str:
    """Each target, what was measured, and whether it is met."""
    lines = ['| what | asked | measured | met |', '|---|---|---|---|']
    for target in TARGETS:
        try:
            text, is_met = target.judge(figures)
        except KeyError:
            text, is_met = 'not measured', None
        met = '' if is_met is None else 'yes' if is_met else '**no**'
        lines.append(f'| {target.what} | {target.asked} | {text} | {met} |')
    return '\n'.join(lines) + '\n'
