"""Clients that do not read what they are answered, or read it slowly."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
import requests

from tests.callers import Identity, RestCaller, new_identity
from tests.exposition import read, value_in
from tests.faults.client import COMPACT, DEFAULT, DIALECTS, Client, Dialect, read_head
from tests.faults.conftest import LOGGING
from tests.faults.frames import Opcode
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak, settled
from tests.server_process import ServerProcess
from zaqar_gevent.websocket.engines import ENGINES

OUTBOX_BYTES = 1024 * 1024
PING_INTERVAL = 1.5
PING_TIMEOUT = 1.0
# What a busy machine may take to tell.
GRACE = 8.0
MAX_IN_FLIGHT = 4
BODY = 'x' * 200_000
PAGE = 20


def configuration(engine: str, max_in_flight: int) -> str:
    return f"""{LOGGING}
[drivers:transport:gevent]
websocket_engine = {engine}
ping_interval = {PING_INTERVAL}
ping_timeout = {PING_TIMEOUT}
max_in_flight = {max_in_flight}
"""


@pytest.fixture(scope='module', params=tuple(ENGINES))
def pinging(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that soon gives silent clients up."""
    config = configuration(request.param, MAX_IN_FLIGHT)
    with ServerProcess(tmp_path_factory.mktemp('pinging'), config=config) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


def filled(server: ServerProcess) -> Identity:
    """Whose queue has a page of 4 MB."""
    identity = new_identity()
    caller = RestCaller(server.url, identity=identity)
    for _ in range(PAGE):
        posted = caller.call('message_post', queue_name='q', messages=[{'body': BODY, 'ttl': 3600}])
        assert posted.status == 201
    caller.close()
    return identity


def ask_for_pages(client: Client, count: int, **more: Any) -> None:
    pages = (
        client.request('message_list', queue_name='q', limit=PAGE, echo=True, **more)
        for _ in range(count)
    )
    client.send(b''.join(pages))


class Watch:
    """The most that ever waited in the outboxes of a server, in bytes."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.most = 0.0

    def connections(self) -> float:
        """How many WebSockets are open; takes notice of the outboxes."""
        samples = read(requests.get(f'{self._server.url}/metrics', timeout=60).text)
        self.most = max(self.most, value_in(samples, 'websocket_outbox_bytes'))
        return sum(
            value for (name, _), value in samples.items() if name == 'zaqar_websocket_connections'
        )

    def until_none_is_left(self, within: float) -> None:
        deadline = time.monotonic() + within
        while self.connections():
            assert time.monotonic() < deadline, 'the client is still connected'
            time.sleep(0.02)


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_whoever_never_reads_costs_little_and_is_given_up(
    pinging: ServerProcess, dialect: Dialect
) -> None:
    identity = filled(pinging)
    page = PAGE * len(BODY) * 1.01
    at_once = MAX_IN_FLIGHT if dialect.subprotocol else 1
    watch = Watch(pinging)
    peak = Peak(pinging.pid)
    with LightLoad(pinging.port) as rest:
        began = time.monotonic()
        with Client(pinging.port, dialect, receive_buffer=4096, identity=identity) as client:
            ask_for_pages(client, 500)
            watch.until_none_is_left(within=PING_INTERVAL + PING_TIMEOUT + GRACE)
            assert time.monotonic() - began > PING_INTERVAL
    print(f'outbox {watch.most / MB:.1f} MB, memory {peak.growth / MB:.1f} MB')
    assert 0 < watch.most < OUTBOX_BYTES + at_once * page
    assert peak.growth < 100 * MB + 4 * at_once * page
    assert rest.p99 < PROMPT


def test_whoever_never_reads_leaves_nothing_behind(pinging: ServerProcess) -> None:
    def give_up() -> None:
        with Client(pinging.port, COMPACT, identity=identity) as client:
            ask_for_pages(client, 20)
            client.receive()

    identity = filled(pinging)
    give_up()
    before = settled(pinging.pid)
    for _ in range(10):
        give_up()
    Watch(pinging).until_none_is_left(within=GRACE)
    assert settled(pinging.pid) - before < 80 * MB


def test_many_large_requests_in_flight_delay_nobody(tmp_path: pathlib.Path) -> None:
    """In the best of three tries: on a busy machine others delay, too."""
    with ServerProcess(tmp_path, config=configuration('websockets', 64)) as server:
        identity = filled(server)
        tries = [p99_beside_large_requests(server, identity)]
        while min(tries) >= PROMPT and len(tries) < 3:
            tries.append(p99_beside_large_requests(server, identity))
        assert min(tries) < PROMPT


def p99_beside_large_requests(server: ServerProcess, identity: Identity) -> float:
    """Of a light load, in seconds, until who asks for them without reading is given up."""
    with (
        LightLoad(server.port) as rest,
        Client(server.port, COMPACT, receive_buffer=4096, identity=identity) as client,
    ):
        ask_for_pages(client, 500)
        Watch(server).until_none_is_left(within=PING_INTERVAL + PING_TIMEOUT + GRACE)
    return rest.p99


class SlowReader(Client):
    """Takes what comes in small pieces, now and then."""

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            time.sleep(0.0005)
            data = self.socket.recv(min(30_000, size - len(self._received) + 14))
            assert data
            self._received += data
        return super()._take(size)


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
def test_large_answers_reach_a_slow_reader_whole_and_once(
    pinging: ServerProcess, dialect: Dialect
) -> None:
    identity = filled(pinging)
    count = 6
    with SlowReader(pinging.port, dialect, receive_buffer=65_536, identity=identity) as client:
        ask_for_pages(client, count)
        answers = [client.answer() for _ in range(count)]
        assert client.lives()
    for answer in answers:
        assert dialect.status(answer) == 200
        assert [message['body'] == BODY for message in answer['body']['messages']] == [True] * PAGE
    if dialect.subprotocol:
        assert sorted(answer['id'] for answer in answers) == list(range(1, count + 1))


def small(client: Client) -> bytes:
    return client.request('message_list', queue_name='empty')


def large(client: Client) -> bytes:
    return client.request('message_list', queue_name='q', limit=PAGE, echo=True)


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_pongs_and_small_answers_do_not_get_into_large_ones(
    pinging: ServerProcess, dialect: Dialect
) -> None:
    identity = filled(pinging)
    order: list[Callable[[Client], bytes]] = [large, small, small, large, small, large, small]
    with SlowReader(pinging.port, dialect, receive_buffer=65_536, identity=identity) as client:
        for make in order:
            client.send(make(client))
            client.send(b'\x89\x84\0\0\0\0ping')
        opcodes = []
        answers = []
        while len(answers) < len(order) or opcodes.count(Opcode.PONG) < len(order):
            received = client.receive()
            opcodes.append(received.opcode)
            assert received.fin
            if received.opcode == Opcode.PONG:
                assert received.payload == b'ping'
            elif received.opcode == dialect.opcode:
                answers.append(dialect.decode(received.payload))
        assert [dialect.status(answer) for answer in answers] == [200] * len(order)
        sizes = sorted(len(answer['body']['messages']) for answer in answers)
        assert sizes == [0, 0, 0, 0, PAGE, PAGE, PAGE]


UNSENT_BYTES = 32 * 1024 * 1024
WRITE_TIMEOUT = 3.0
# Until work with a long answer is refused, by zaqar_gevent.sockets.unsent.
ROOM_SECONDS = 10.0
BOUNDED = f"""{LOGGING}
[drivers:transport:gevent]
max_unsent_bytes = {UNSENT_BYTES}
write_timeout = {WRITE_TIMEOUT}
keepalive_timeout = 2
ping_interval = 3
ping_timeout = 3
"""
LARGE_BODY = 'x' * 250_000


def full_of_large(server: ServerProcess) -> Identity:
    """Whose queue has a page of 5 MB."""
    identity = new_identity()
    caller = RestCaller(server.url, identity=identity)
    for _ in range(PAGE):
        messages = [{'body': LARGE_BODY, 'ttl': 3600}]
        assert caller.call('message_post', queue_name='q', messages=messages).status == 201
    caller.close()
    return identity


class Deaf:
    """Connections that ask and never read."""

    def __init__(self, port: int, count: int, request: bytes) -> None:
        self._sockets = []
        for _ in range(count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(('127.0.0.1', port))
            connection.sendall(request)
            self._sockets.append(connection)

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in self._sockets:
            connection.close()


def median_seconds(ask: Callable[[], object], until: float) -> float:
    """How long `ask` takes, asked over and over until `until`, by `time.monotonic`."""
    taken = []
    while not taken or time.monotonic() < until:
        began = time.monotonic()
        ask()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def test_large_answers_of_one_project_do_not_delay_claims_of_others(
    bounded: ServerProcess,
) -> None:
    """Among themselves they wait: each takes as long as those of all the crowd together."""
    large, other = full_of_large(bounded), new_identity()
    crowd = 24
    until = time.monotonic() + 2.5

    def list_pages(_: int) -> float:
        caller = RestCaller(bounded.url, identity=large)
        try:
            return median_seconds(
                lambda: caller.call('message_list', queue_name='q', limit=PAGE, echo=True), until
            )
        finally:
            caller.close()

    with ThreadPoolExecutor(crowd) as threads:
        lists = threads.map(list_pages, range(crowd))
        caller = RestCaller(bounded.url, identity=other)
        statuses = set()
        claim = median_seconds(
            lambda: statuses.add(caller.call('claim_create', queue_name='empty').status), until
        )
        caller.close()
        page = statistics.median(lists)
    print(f'a claim takes {claim * 1000:.0f} ms, a page of the crowd {page * 1000:.0f} ms')
    assert statuses == {204}
    assert claim < page / 4


def connections(server: ServerProcess) -> int:
    """Those that clients have to the server, by what the kernel says of its process."""
    listed = psutil.Process(server.pid).net_connections('tcp')
    return sum(each.status == psutil.CONN_ESTABLISHED for each in listed)


def wait_until_gone(server: ServerProcess, left: int, within: float) -> float:
    """After how many seconds no more than `left` connections are open."""
    began = time.monotonic()
    while connections(server) > left:
        assert time.monotonic() - began < within, f'{connections(server)} connections are open'
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture
def bounded(tmp_path: pathlib.Path) -> Iterator[ServerProcess]:
    """A server that holds little for clients that do not read."""
    with ServerProcess(tmp_path, config=BOUNDED) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


def list_request(identity: Identity) -> bytes:
    """A request for a page of 5 MB."""
    lines = [f'{name}: {value}' for name, value in identity.headers().items()]
    target = f'/v2/queues/q/messages?limit={PAGE}&echo=true'
    return '\r\n'.join([f'GET {target} HTTP/1.1', 'Host: localhost', *lines, '', '']).encode()


def beside_rest_crowd(server: ServerProcess, identity: Identity) -> float:
    """The p99 of a light load, until 150 clients that list and do not read are gone."""
    with (
        LightLoad(server.port) as rest,
        Deaf(server.port, 150, list_request(identity)),
    ):
        wait_until_gone(server, 1, within=ROOM_SECONDS + WRITE_TIMEOUT + 2 + GRACE)
    assert rest.statuses == {204}
    return rest.p99


def beside_websocket_crowd(server: ServerProcess, identity: Identity) -> float:
    """The same for 120 WebSockets with 64 lists in flight each."""
    with LightLoad(server.port) as rest, ExitStack() as stack:
        for _ in range(120):
            client = Client(server.port, COMPACT, receive_buffer=4096, identity=identity)
            stack.enter_context(client)
            with contextlib.suppress(OSError):
                ask_for_pages(client, 64)
        within = ROOM_SECONDS + WRITE_TIMEOUT + 6 + 4 * GRACE
        wait_until_gone(server, 1, within=within)
    assert rest.statuses == {204}
    return rest.p99


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ('crowd', 'margin'),
    [(beside_rest_crowd, 200 * MB), (beside_websocket_crowd, 350 * MB)],
    ids=['rest', 'websocket'],
)
def test_a_crowd_that_never_reads_costs_what_is_allowed_and_delays_nobody(
    bounded: ServerProcess,
    crowd: Callable[[ServerProcess, Identity], float],
    margin: int,
) -> None:
    """It delays nobody in the best of three tries: on a busy machine others delay, too."""
    identity = full_of_large(bounded)
    peak = Peak(bounded.pid)
    tries = [crowd(bounded, identity)]
    growth = peak.growth
    print(f'{peak.before / MB:.0f} MB, at most {growth / MB:.0f} MB more')
    while min(tries) >= PROMPT and len(tries) < 3:
        tries.append(crowd(bounded, identity))
    assert growth < UNSENT_BYTES + margin
    assert min(tries) < PROMPT


def test_lists_that_could_wait_are_not_begun_either_while_answers_are_not_read(
    bounded: ServerProcess,
) -> None:
    """Nothing has to be waited for, or only for a moment."""
    identity = full_of_large(bounded)
    peak = Peak(bounded.pid)
    with Client(bounded.port, COMPACT, receive_buffer=4096, identity=identity) as client:
        ask_for_pages(client, 64, wait=0.001)
        wait_until_gone(bounded, 1, within=ROOM_SECONDS + WRITE_TIMEOUT + GRACE)
    assert peak.growth < 120 * MB


def test_a_rest_client_that_never_reads_is_closed_in_time(bounded: ServerProcess) -> None:
    identity = full_of_large(bounded)
    with Deaf(bounded.port, 3, list_request(identity)):
        while connections(bounded) < 3:
            time.sleep(0.02)
        seconds = wait_until_gone(bounded, 0, within=WRITE_TIMEOUT + GRACE)
    assert seconds > WRITE_TIMEOUT - 0.5


def test_a_rest_client_that_reads_slowly_is_served(bounded: ServerProcess) -> None:
    """Not the whole answer, but some of it, is to be taken in time."""
    identity = full_of_large(bounded)
    began = time.monotonic()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(('127.0.0.1', bounded.port))
        connection.sendall(list_request(identity))
        _, headers, body = read_head(connection)
        received = len(body)
        while received < int(headers['content-length']):
            data = connection.recv(65536)
            assert data, 'the connection was closed'
            received += len(data)
            time.sleep(len(data) / 1_000_000)
    assert time.monotonic() - began > WRITE_TIMEOUT + 1
