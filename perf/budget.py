"""What each main operation may cost: processor time, in units of a loop that never changes.

    python -m perf.budget [--renew | --check]

Everything that a request passes but the sockets runs in this process: frames, sessions, REST, the
API and the embedded store with its threads. The unit is one turn of a calibration loop, measured
before and after each batch in the same process, so that a slower or busier machine changes both
alike. Of the ratios of several rounds the lower quartile counts: what disturbs batches makes them
dearer, and a loop that was disturbed, which makes a batch look cheap, changes one ratio only.
`--renew` writes `budget.json`, `--check` fails where an operation costs more than a quarter
above it, and neither prints the ratios alone.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import pathlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gevent import monkey

BUDGET = pathlib.Path(__file__).parent / 'budget.json'
# The disk is not what is measured: no fsync, and files in memory where there is such a place.
MEMORY = pathlib.Path('/dev/shm')
GROWTH = 1.25
CLAIM = 'zaqar.v2 claim and delete'
# Where nothing is near its limit, a few rounds will do.
SURELY = 1.12
LEAST_ROUNDS, ROUNDS = 6, 14
GREENLETS = 16
REQUESTS = 12
CALIBRATION_TURNS = 100


class Batch(NamedTuple):
    """What performs an operation many times, and what it needs to be done before."""

    perform: Callable[[], None]
    prepare: Callable[[], None] = lambda: None


def calibrate() -> None:
    """What requests are made of: JSON, dictionaries, calls, switches and statements of SQLite."""
    import gevent
    import msgspec

    document = {'queue_name': 'q', 'messages': [{'ttl': 60, 'body': {'n': list(range(20))}}] * 3}
    database = sqlite3.connect(':memory:', isolation_level=None)
    database.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)')

    def turn(text: bytes) -> int:
        decoded = msgspec.json.decode(text)
        seen = {name: len(str(value)) for name, value in decoded.items()}
        for message in decoded['messages']:
            seen.update({key: id(value) for key, value in message.items()})
        database.execute('INSERT INTO t (body) VALUES (?)', (text.decode(),))
        gevent.sleep(0)
        return sum(seen.values())

    text = msgspec.json.encode(document)
    for _ in range(CALIBRATION_TURNS):
        turn(text)
    database.close()


class Bench:
    """A server without sockets, and requests to it."""

    def __init__(self, directory: pathlib.Path) -> None:
        from oslo_config import cfg

        from zaqar_gevent import conf as configuration
        from zaqar_gevent.server import TransportDriver
        from zaqar_gevent.storage.sqlite import ControlDriver, DataDriver
        from zaqar_gevent.websocket import engines

        conf = cfg.CONF
        file = directory / 'zaqar.conf'
        file.write_text(
            '[drivers:message_store:sqlite]\nsynchronous = normal\n'
            '[drivers:management_store:sqlite]\nsynchronous = normal\n'
        )
        configuration.load(conf, [str(file)])
        configuration.use_embedded_store(conf, directory)
        self._control = ControlDriver(conf, None)
        self._data = DataDriver(conf, None, self._control)
        driver = TransportDriver(conf, self._data, None, self._control)
        self._session_factory, self._app = driver.session_factory, driver.app
        self._engine = engines.load('websockets')
        self._limits = engines.FrameLimits(2**20, 2**20, 64)

    @property
    def database(self) -> Any:
        """The file that messages are in."""
        return self._data.database

    def close(self) -> None:
        self._data.close()
        self._control.close()

    def talker(self, subprotocol: str | None) -> Callable[[bytes], bytes]:
        """A connection: it is given a frame, and gives the frame that answers."""
        from perf.wire import HEADERS
        from zaqar_gevent.websocket.session import Retractable, Work

        headers = {name.lower(): value for name, value in HEADERS.items()}
        session = self._session_factory(subprotocol, None, headers, '127.0.0.1')
        engine = self._engine(self._limits)

        def talk(frame: bytes) -> bytes:
            for message in engine.receive(frame):
                answer = session.receive(message.payload, binary=message.binary)
                if isinstance(answer, Work):
                    answer = answer.perform()
                if isinstance(answer, Retractable):
                    answer = answer.payload
                engine.send(answer, binary=message.binary)
            return b''.join(engine.outgoing())

        return talk

    def request(self, method: str, path: str, document: Any = None) -> Callable[[], bytes]:
        """An HTTP request, as the server hands it to the application; gives the answer's body."""
        import io

        import falcon.testing
        import msgspec

        from perf.wire import HEADERS
        from zaqar_gevent.websocket.upgrade import TAKEOVER

        body = b'' if document is None else msgspec.json.encode(document)
        path, _, query = path.partition('?')
        environ = falcon.testing.create_environ(
            path,
            query,
            method=method,
            host='127.0.0.1',
            headers={
                **HEADERS,
                'Content-Type': 'application/json',
                'Content-Length': str(len(body)),
            },
        )

        # A server that reads heads strictly gives connections away, too.
        environ[TAKEOVER] = None

        def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
            if not status.startswith('2'):
                raise AssertionError(f'{method} {path}: {status}')

        def ask() -> bytes:
            answer = self._app({**environ, 'wsgi.input': io.BytesIO(body)}, start_response)
            return b''.join(answer)

        return ask


def together(ask: Sequence[Callable[[], object]], requests: int = REQUESTS) -> None:
    """Requests of several clients at once, so many of each."""
    import gevent

    def repeat(one: Callable[[], object]) -> None:
        for _ in range(requests):
            one()

    gevent.joinall([gevent.spawn(repeat, one) for one in ask], raise_error=True)


def batches(bench: Bench) -> dict[str, Batch]:
    """By its name, what performs an operation `GREENLETS * REQUESTS` times."""
    from perf import workloads
    from perf.wire import Compact, Default, Dialect

    def over(dialect: Dialect, operation: str, queue: str = 'q') -> Callable[[], None]:
        cell = workloads.Cell(operation, '100 B')
        exchange = workloads.exchange_of(cell, dialect, queue)
        talks = [bench.talker(dialect.subprotocol or None) for _ in range(GREENLETS)]
        frame = exchange.first(1)
        if frame and not dialect.is_ok(talks[0](frame)):
            raise AssertionError(f'{operation}: {talks[0](frame)!r}')

        def perform(talk: Callable[[bytes], bytes]) -> None:
            answer = talk(frame)
            if exchange.then is not None:
                for following in exchange.then(answer, 1):
                    talk(following)

        return lambda: together([functools.partial(perform, talk) for talk in talks])

    def rest(method: str, path: str, document: Any = None) -> Callable[[], None]:
        ask = bench.request(method, f'/v2/queues/{path}', document)
        ask()
        return lambda: together([ask] * GREENLETS)

    json_, msgpack, default = Compact(binary=False), Compact(binary=True), Default(binary=False)
    fill(bench, json_, 'ten', 10)
    claimed = functools.partial(fill, bench, json_, 'work', (GREENLETS * REQUESTS + 1) * 10)
    claimed()
    ten = workloads.messages('100 B', 10)
    performing = {
        'websocket post': over(default, workloads.POST),
        'websocket list': over(default, workloads.LIST, 'ten'),
        'websocket queue get': over(default, workloads.GET),
        'zaqar.v2 post, json': over(json_, workloads.POST),
        'zaqar.v2 post, msgpack': over(msgpack, workloads.POST),
        'zaqar.v2 post of ten': over(msgpack, workloads.POST_TEN),
        'zaqar.v2 list': over(msgpack, workloads.LIST, 'ten'),
        CLAIM: over(msgpack, workloads.CLAIM, 'work'),
        'zaqar.v2 queue stats': over(msgpack, workloads.STATS, 'ten'),
        'rest post': rest('POST', 'q/messages', {'messages': ten[:1]}),
        'rest list': rest('GET', 'ten/messages?echo=true&limit=10'),
        'rest queue get': rest('GET', 'q'),
    }
    found = {name: Batch(perform) for name, perform in performing.items()}
    found[CLAIM] = found[CLAIM]._replace(prepare=claimed)
    return found


def fill(bench: Bench, dialect: Any, queue: str, count: int, size: str = '100 B') -> None:
    """Post messages to list or to claim."""
    from perf import workloads

    talk = bench.talker(dialect.subprotocol)
    while count > 0:
        messages = workloads.messages(size, min(count, 50))
        body = {'queue_name': queue, 'messages': messages}
        answer = dialect.decode(talk(dialect.encode('message_post', body, 1)))
        if answer.status != 201:
            raise AssertionError(answer)
        count -= len(messages)


def costs(enough: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """What each operation costs, in turns of the calibration loop.

    enough: whether so many rounds will do, asked after `LEAST_ROUNDS`.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        bench = Bench(pathlib.Path(directory))
        try:
            return _measure(batches(bench), enough)
        finally:
            bench.close()


def _measure(
    work: dict[str, Batch], enough: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    """What each operation was seen to cost in several rounds: the lower quartile."""
    for batch in work.values():
        batch.prepare()
        batch.perform()
    gc.collect()
    gc.freeze()
    calibration = Batch(calibrate)
    turns: dict[str, list[float]] = {name: [] for name in work}
    found: dict[str, float] = {}
    for number in range(ROUNDS):
        if number >= LEAST_ROUNDS and enough(found):
            break
        before = _seconds(calibration)
        for name, batch in work.items():
            used = _seconds(batch)
            after = _seconds(calibration)
            turn = (before + after) / 2 / CALIBRATION_TURNS
            turns[name].append(used / (GREENLETS * REQUESTS) / turn)
            before = after
        if number:
            found = {
                name: round(statistics.quantiles(each, n=4)[0], 2) for name, each in turns.items()
            }
    return found


def _seconds(batch: Batch) -> float:
    """The processor time of a batch, its threads' included."""
    batch.prepare()
    gc.collect()
    gc.disable()
    before = time.process_time()
    batch.perform()
    used = time.process_time() - before
    gc.enable()
    return used


def overruns(
    found: dict[str, float], budget: dict[str, float], growth: float = GROWTH
) -> list[str]:
    """What costs more than `growth` times what it may, a line each."""
    return [
        f'{name}: {found[name]:.2f}, of {allowed:.2f} in the budget (x{found[name] / allowed:.2f})'
        for name, allowed in budget.items()
        if found[name] > allowed * growth
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--renew', action='store_true', help='write the budget file')
    parser.add_argument('--check', action='store_true', help='compare with the budget file')
    options = parser.parse_args(argv)
    monkey.patch_all()
    budget = json.loads(BUDGET.read_text()) if options.check else {}
    found = costs(lambda so_far: options.check and not overruns(so_far, budget, SURELY))
    print(json.dumps(found, indent=1))
    if options.renew:
        BUDGET.write_text(json.dumps(found, indent=1) + '\n')
    if options.check:
        over = overruns(found, budget)
        for line in over:
            print(line, file=sys.stderr)
        return 1 if over else 0
    return 0


if __name__ == '__main__':
    sys.exit(main())
