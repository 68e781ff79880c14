"""How fast the parts are of which the server is made: what nobody could be faster than with them.

    python -m perf.ceiling [--seconds 1] [--rounds 3]

Bare frames on gevent, bare Falcon on gevent's server, bare group commits of SQLite, bare Redis; and
an echo through our own connections, with each frame engine. The same requests, the same client and
the same cores as in `perf.compare`. Writes `results/ceiling.json`.
"""

from __future__ import annotations

import functools
import pathlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perf import bare, results, tables
from perf.load import Driver, Exchange
from perf.machine import CLIENT_CORE, SERVER_CORE, end_orderly, on_core
from perf.servers import Fleet, Server
from perf.wire import Compact, Default, Dialect, Rest
from perf.workloads import POST, SIZES, Cell, body_of, exchange_of
from tests.redis_process import RedisProcess

ENGINES = ('websockets', 'ws4py')


class Echo(Compact):
    """A request that comes back as it was sent."""

    subprotocol = ''

    def is_ok(self, answer: bytes | bytearray) -> bool:
        return True


class DefaultEcho(Default):
    """The same of upstream's envelope."""

    def is_ok(self, answer: bytes | bytearray) -> bool:
        return True


class Resp(Rest):
    """Redis's own protocol, for commands that are answered with a number."""

    def encode(self, action: str, body: Mapping[str, Any], ident: int) -> bytes:
        words = [action.encode(), *(str(value).encode() for value in body.values())]
        lengths = (b'$%d\r\n%s\r\n' % (len(word), word) for word in words)
        return b'*%d\r\n%s' % (len(words), b''.join(lengths))

    def size(self, received: bytes | bytearray) -> int:
        return received.find(b'\r\n') + 2 if b'\r\n' in received else 0

    def is_ok(self, answer: bytes | bytearray) -> bool:
        return answer[0] == ord(':')

    def is_last(self, answer: bytes | bytearray) -> bool:
        return False


class Part(NamedTuple):
    """Something to measure: what listens, how to speak to it, what to ask."""

    name: str
    port: int
    pids: Sequence[int]
    dialect: Dialect
    exchange: Exchange
    in_flight: int = 1


def parts(fleet: Fleet, size: str) -> list[Part]:
    """All that is asked with bodies of `size`."""
    cell = Cell(POST, size)
    found = _served(fleet.bare(bare.FALCON), 'bare Falcon on pywsgi', Rest(), cell)
    servers = {'bare frames on gevent': fleet.bare(bare.ECHO)}
    for engine in ENGINES:
        servers[f'echo, engine {engine}'] = fleet.echo(engine)
    for name, server in servers.items():
        found += _served(server, f'{name}, default envelope', DefaultEcho(binary=False), cell)
        found += _served(server, name, Echo(binary=False), cell)
        found += _served(server, f'{name}, 16 in flight', Echo(binary=False), cell, 16)
    text = str(body_of(SIZES[size]))
    for durable in (False, True):
        with on_core(SERVER_CORE):
            redis = fleet.enter_context(RedisProcess(fleet.directory()))
        if durable:
            redis.client.config_set('appendfsync', 'always')
            redis.client.config_set('appendonly', 'yes')
        command = Resp().encode('RPUSH', {'key': 'q', 'value': text}, 0)
        name = f'bare Redis, {"fsync" if durable else "memory"}'
        pids = [redis.client.info('server')['process_id']]
        exchange = Exchange(functools.partial(_always, command))
        found.append(Part(name, redis.port, pids, Resp(), exchange))
    return found


def _always(request: bytes, ident: int) -> bytes:
    return request


def _served(
    server: Server, name: str, dialect: Dialect, cell: Cell, in_flight: int = 1
) -> list[Part]:
    exchange = exchange_of(cell, dialect, 'q')
    return [Part(name, server.port, server.pids, dialect, exchange, in_flight)]


def commit_rows(file: pathlib.Path, size: int, batch: int, seconds: float) -> dict[str, float]:
    """Insert and fsync `batch` rows at a time: rows a second, and processor time for each."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute('PRAGMA journal_mode = WAL')
    database.execute('PRAGMA synchronous = FULL')
    database.execute('CREATE TABLE m (id INTEGER PRIMARY KEY, queue, expires, body)')
    text = str(body_of(size))
    rows, began, before = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        database.execute('BEGIN')
        for _ in range(batch):
            database.execute(
                'INSERT INTO m (queue, expires, body) VALUES (?, ?, ?)', (1, began, text)
            )
        database.execute('COMMIT')
        rows += batch
    took, used = time.perf_counter() - began, time.process_time() - before
    database.close()
    file.unlink()
    return {'rate': rows / took, 'server_us': used / rows * 1e6}


def measure(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Every part with bodies of 100 B and of 4 KB."""
    found = []
    with Fleet() as fleet, on_core(CLIENT_CORE):
        for size in ('100 B', '4 KB'):
            rows: dict[str, list[dict[str, float]]] = {}
            several = parts(fleet, size)
            for _ in range(rounds):
                for part in several:
                    rows.setdefault(part.name, []).append(_drive(part, seconds))
                for batch in (1, 16, 256):
                    name = f'bare SQLite, commits of {batch}'
                    file = fleet.directory() / 'bare.sqlite'
                    with on_core(SERVER_CORE):
                        row = commit_rows(file, SIZES[size], batch, seconds)
                    rows.setdefault(name, []).append(row)
            found += [_summary(name, size, each) for name, each in rows.items()]
    return found


def _drive(part: Part, seconds: float) -> dict[str, float]:
    driver = Driver(*(part.port, part.dialect, part.exchange, part.pids), in_flight=part.in_flight)
    sample = driver.run(seconds)
    return {
        'rate': sample.exchanges / sample.seconds,
        'server_us': sample.server / sample.exchanges * 1e6,
        'client_share': sample.client / sample.seconds,
    }


def _summary(name: str, size: str, rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    figures = {key: results.middle([row[key] for row in rows]) for key in rows[0]}
    return {'part': name, 'size': size, **figures}


def main(argv: Sequence[str] | None = None) -> None:
    options = results.options(__doc__, argv, seconds=0.7)
    end_orderly()
    found = measure(options.seconds, options.rounds)
    print(tables.ceilings(found))
    print(results.save('ceiling', found, options.out))


if __name__ == '__main__':
    main()
