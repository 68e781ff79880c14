"""What was asked of the server, and whether a run meets it."""

from __future__ import annotations

import math
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

    def latency(self, variant: str, cell: str, figure: str) -> float | None:
        """A percentile of `perf.compare` in milliseconds; None where too few were measured."""
        found = self._cells[variant, cell]['latency'][figure]
        return None if found is None else float(found)

    @property
    def peers(self) -> Sequence[dict[str, Any]]:
        """The rows of `perf.peers`; raises KeyError where it was not run."""
        return self._rows_of('peers')

    @property
    def clients(self) -> Sequence[dict[str, Any]]:
        """The rows of `perf.clients`; raises KeyError likewise."""
        return self._rows_of('clients')

    def _rows_of(self, program: str) -> Sequence[dict[str, Any]]:
        rows: Sequence[dict[str, Any]] = self._found[program]['rows']
        return rows

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
    ours: str, upstream: str, cell: str, least: float, most_us: float = math.inf
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


def less(ours: str, reference: str, cell: str, least: float) -> Callable[[Figures], Verdict]:
    """At least so many times less processor time than the reference."""

    def judge(figures: Figures) -> Verdict:
        used, used_there = (figures.cell(name, cell, 'server_us') for name in (ours, reference))
        text = f'{tables.times(used_there / used)}: {used:,.0f} µs against {used_there:,.0f} µs'
        return Verdict(text, used_there / used >= least)

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


def p99(figures: Figures) -> Verdict:
    """Where ours is later than upstream's, of cells with as many requests in flight."""
    later = []
    for ours, upstream in _SAME_WAY:
        for cell in figures.cells:
            if not (figures.has(ours, cell) and figures.has(upstream, cell)):
                continue
            mine, theirs = (figures.latency(name, cell, 'p99') for name in (ours, upstream))
            if mine is not None and theirs is not None and mine >= theirs:
                later.append(f'{cell}, {ours}: {mine:.2f} ms against {theirs:.2f} ms')
    return Verdict('; '.join(later) or 'below everywhere', not later)


def rabbitmq(figures: Figures) -> Verdict:
    """How many times RabbitMQ's rate, in each of its rows."""
    rates = {
        (row['peer'], row['size'], row['in_flight']): row['rate']['median']
        for row in figures.peers
        if row['is_fsynced']
    }
    ratios = [
        (rates['zaqar_gevent, zaqar.v2', size, in_flight] / rate, size, in_flight)
        for (peer, size, in_flight), rate in rates.items()
        if peer.startswith('RabbitMQ')
    ]
    if not ratios:
        raise KeyError('RabbitMQ')
    text = ', '.join(
        f'{times:.2f}x ({size}, {in_flight} in flight)' for times, size, in_flight in ratios
    )
    return Verdict(text, min(ratios)[0] >= 2)


def store_time(figures: Figures) -> Verdict:
    """Redis's processor time of an operation, with our driver and with upstream's."""
    texts, is_met = [], True
    for cell in (POST, 'list 10, 100 B', 'claim 10 + delete 10, 100 B', 'queue get'):
        mine, theirs = (figures.cell(name, cell, 'store_us') for name in (_NATIVE, _ON_REDIS))
        texts.append(f'{cell}: {mine:,.0f} µs against {theirs:,.0f} µs')
        is_met = is_met and mine < theirs
    return Verdict('; '.join(texts), is_met)


def client(name: str, what: str, least: float, most_us: float = math.inf) -> Callable[..., Verdict]:
    """At least so many a second of a client, and at most so much of its processor time."""

    def judge(figures: Figures) -> Verdict:
        for row in figures.clients:
            if (row['client'], row['what']) == (name, what):
                rate, used = row['rate']['median'], row['client_us']['median']
                text = f'{tables.count(rate)}/s, {used:,.0f} µs of the client'
                return Verdict(text, rate >= least and used <= most_us)
        raise KeyError(what)

    return judge


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


def growth(most_times: float, *asked: tuple[str, str]) -> Callable[[Figures], Verdict]:
    """How many times the cost of operations grows along axes of `perf.scale`.

    asked: each axis, and the operation.
    """

    def judge(figures: Figures) -> Verdict:
        texts, worst = [], 0.0
        for along, operation in asked:
            rows = [
                (row['at'], row['server_us']['median'])
                for row in figures.rows('scale')
                if (row['along'], row['operation']) == (along, operation)
            ]
            if not rows:
                raise KeyError(along)
            (least, first), (most, last) = min(rows), max(rows)
            worst = max(worst, last / first)
            texts.append(f'{operation} {last / first:.2f}x ({least:,} to {most:,} {along})')
        return Verdict(', '.join(texts), worst <= most_times)

    return judge


UPSTREAM = 'upstream WebSocket JSON'
_ON_REDIS = 'ours WebSocket JSON on Redis'
_NATIVE = 'ours WebSocket JSON on Redis, native'
_ON_POSTGRESQL = 'ours WebSocket JSON on PostgreSQL'
# Ours and upstream's, asked alike.
_SAME_WAY = (
    ('ours WebSocket JSON', UPSTREAM),
    ('ours WebSocket MsgPack', 'upstream WebSocket MsgPack'),
    ('ours REST, gunicorn', 'upstream REST, gunicorn gevent'),
)
_LENGTH = 'messages in the queue'
_LIST, _CLAIM = 'list 10, 100 B', 'claim 10 + delete 10, 100 B'
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
        'post, not pinned to a core',
        '<= 50 µs',
        at_most('ours WebSocket JSON, not pinned', POST, 50),
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
    Target(
        'post 64 KB of text',
        '<= 330 µs',
        at_most('ours WebSocket JSON', 'post 1, 64 KB of text', 330),
    ),
    Target(
        'post 64 KB of objects', '<= 450 µs', at_most('ours WebSocket JSON', 'post 1, 64 KB', 450)
    ),
    Target('list of 10 of 4 KB', '<= 130 µs', at_most('ours WebSocket JSON', 'list 10, 4 KB', 130)),
    Target('post, one connection, one in flight', '<= 180 µs, <= 0.30 ms', alone),
    Target('MsgPack against JSON', 'never dearer', msgpack_against_json),
    Target('WebSocket against our own REST, post', '>= 4x CPU, >= 3x bytes', against_rest),
    Target('WebSocket post as a share of an echo by the same engine', '>= 50 %', of_echo),
    Target('fan-out 1 to 1,000', '<= 11 µs each', fanout),
    Target('opening a WebSocket', '<= 250 µs', opening),
    Target('idle connection', '<= 18 KB', idle),
    Target(
        'list and claim, a million messages against a thousand',
        '<= 1.5x',
        growth(
            1.5,
            *((_LENGTH, 'list 10'), (_LENGTH, 'list 10 from the middle')),
            (_LENGTH, 'claim 10 + release'),
        ),
    ),
    Target('stats, likewise', '<= 1.2x', growth(1.2, (_LENGTH, 'queue stats'))),
    Target(
        'claims past 100,000 delayed or held messages',
        '<= 1.2x',
        growth(
            1.2,
            ('delayed messages before them', 'claim 10 + release'),
            ('held messages before them', 'claim 10 + release'),
        ),
    ),
    Target("p99 against upstream's, as many in flight", 'below in all cells', p99),
    Target('RabbitMQ, each of its rows', '>= 2x', rabbitmq),
    *(
        Target(
            f"on Redis, {cell}, against upstream's driver",
            f'>= {times}x less CPU',
            less(_NATIVE, _ON_REDIS, cell, times),
        )
        for cell, times in ((POST, 8), (_LIST, 15), (_CLAIM, 15), ('queue get', 4))
    ),
    *(
        Target(
            f"on Redis, {cell}, against upstream's server",
            f'>= {times}x',
            ratio(_NATIVE, UPSTREAM, cell, times),
        )
        for cell, times in ((POST, 9), (_LIST, 15), (_CLAIM, 15))
    ),
    Target("Redis's own time, against upstream's driver", 'lower', store_time),
    *(
        Target(
            f'on PostgreSQL, {cell}', f'>= {times}x', ratio(_ON_POSTGRESQL, UPSTREAM, cell, times)
        )
        for cell, times in ((POST, 8), (_LIST, 12), (_CLAIM, 8))
    ),
    Target(
        'Python client, posts one by one', '<= 150 µs', client('ours', 'posts, one by one', 0, 150)
    ),
    Target('posts of 16 threads', '>= 10,000/s', client('ours', 'posts of 16 threads', 10_000)),
    Target(
        'taken, `ack(wait=False)`', '>= 8,000/s', client('ours', 'taken, `ack(wait=False)`', 8000)
    ),
    Target(
        'asyncio, posts of 1,000 tasks',
        '>= 12,000/s',
        client('ours, asyncio', 'posts of 1,000 tasks', 12_000),
    ),
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
        (_NATIVE, _ON_REDIS, _LIST, 1),
        (_NATIVE, _ON_REDIS, _CLAIM, 2),
        ('ours WebSocket JSON', UPSTREAM, _CLAIM, 2),
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
