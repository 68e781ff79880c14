"""Lists and claims that wait until there is something to be had."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.callers import TRANSPORTS, Answer, Identity, RestCaller, connect, new_identity
from tests.faults.client import COMPACT, DEFAULT, Client
from tests.faults.memory import resident
from tests.functional.test_push import Hasty, Subscriber, eventually, post
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

TRIES = 50
CROWD = 1_000


@pytest.fixture
def rest(server: ServerProcess) -> Iterator[RestCaller]:
    """A client over REST, of a project of its own."""
    caller = RestCaller(server.url)
    yield caller
    caller.close()


@pytest.fixture(params=TRANSPORTS)
def waiting(
    request: pytest.FixtureRequest, server: ServerProcess, rest: RestCaller
) -> Iterator[Waiting]:
    """A client of the same project over each transport."""
    caller = connect(request.param, server.url, server.websocket_url, rest.identity)
    yield Waiting(caller)
    caller.close()


class Waiting:
    """A client that waits in the background, with one request at a time.

    began_at, ended_at: when it did, in seconds of `time.perf_counter`.
    """

    def __init__(self, caller: Any) -> None:
        self.caller = caller
        self.began_at = self.ended_at = 0.0
        self._answer: Answer | None = None
        self._thread: threading.Thread | None = None

    def begin(self, action: str, **arguments: Any) -> None:
        def ask() -> None:
            self._answer = self.caller.call(action, queue_name='orders', **arguments)
            self.ended_at = time.perf_counter()

        self.began_at = time.perf_counter()
        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    def answer(self) -> Answer:
        assert self._thread is not None
        self._thread.join(60)
        assert self._answer is not None
        return self._answer

    def ask(self, action: str, **arguments: Any) -> Answer:
        self.begin(action, **arguments)
        return self.answer()

    @property
    def took(self) -> float:
        return self.ended_at - self.began_at


def bodies_of(answer: Answer) -> list[Any]:
    return [message['body'] for message in answer.body['messages']]


def is_waiting(server: ServerProcess, count: int = 1) -> bool:
    """Whether so many clients are connected to the server."""
    connections = psutil.Process(server.pid).net_connections('tcp')
    taken = [one for one in connections if one.raddr and one.laddr.port == server.port]
    return len(taken) >= count


def test_what_is_there_already_is_not_waited_for(waiting: Waiting, rest: RestCaller) -> None:
    post(rest, 'hello')
    assert bodies_of(waiting.ask('message_list', echo=True, wait=20)) == ['hello']
    assert waiting.took < 10
    assert bodies_of(waiting.ask('claim_create', wait=20)) == ['hello']
    assert waiting.took < 10


@pytest.mark.parametrize('wait', [0.3, 0, None])
def test_who_has_waited_long_enough_is_told_that_there_is_nothing(
    waiting: Waiting, wait: float | None
) -> None:
    given = {} if wait is None else {'wait': wait}
    listed = waiting.ask('message_list', **given)
    assert (listed.status, listed.body['messages']) == (200, [])
    assert (wait or 0) <= waiting.took < (wait or 0) + 10
    claimed = waiting.ask('claim_create', **given)
    assert claimed.status == 204
    assert (wait or 0) <= waiting.took < (wait or 0) + 10
    assert waiting.caller.call('queue_list').body['queues'] == []


@pytest.mark.parametrize('action', ['message_list', 'claim_create'])
@pytest.mark.parametrize('wait', [20.01, 21, 1e9, -1, -0.001, 'soon', 'nan', 'inf', ['x'], True])
def test_a_time_that_cannot_be_waited_is_refused(waiting: Waiting, action: str, wait: Any) -> None:
    refused = waiting.ask(action, wait=wait)
    assert refused.status == 400
    assert waiting.took < 10


@pytest.mark.parametrize('action', ['message_list', 'claim_create'])
def test_who_waits_is_answered_as_soon_as_there_is_something(
    server: ServerProcess, waiting: Waiting, rest: RestCaller, action: str
) -> None:
    given = {'echo': True} if action == 'message_list' else {'limit': 1}
    waits = []
    for number in range(TRIES):
        waiting.begin(action, wait=20, **given)
        time.sleep(0.005)
        watch = Stopwatch(server.pid)
        [message_id] = post(rest, number)
        assert bodies_of(waiting.answer()) == [number]
        waits.append(watch.seconds())
        rest.call('message_delete_many', queue_name='orders', message_ids=[message_id])
    median = statistics.median(waits)
    print(f'{action}: {1000 * median:.1f} ms from the post, median')
    assert median < 0.02


def test_what_is_released_ends_a_wait(waiting: Waiting, rest: RestCaller) -> None:
    post(rest, 'again')
    claim_id = rest.call('claim_create', queue_name='orders').body['claim_id']
    waiting.begin('claim_create', wait=20)
    assert rest.call('claim_delete', queue_name='orders', claim_id=claim_id).status == 204
    assert bodies_of(waiting.answer()) == ['again']
    assert waiting.took < 10


def test_only_what_is_asked_for_ends_a_wait(waiting: Waiting, rest: RestCaller) -> None:
    """Not what the client has posted itself, nor what comes before the marker."""
    stranger = RestCaller(rest.url, identity=Identity(rest.identity.project_id))
    ids = post(rest, 0, 1)
    waiting.begin('message_list', marker=ids[-1], limit=2, wait=20)
    post(waiting.caller if isinstance(waiting.caller, RestCaller) else rest, 'mine')
    post(stranger, 'theirs', 'second', 'third')
    listed = waiting.answer()
    assert bodies_of(listed)[0] == 'theirs'
    assert len(listed.body['messages']) <= 2
    following = waiting.ask('message_list', marker=listed.body['marker'], wait=20)
    assert bodies_of(listed) + bodies_of(following) == ['theirs', 'second', 'third']


def test_projects_and_queues_do_not_end_each_others_waits(
    waiting: Waiting, rest: RestCaller
) -> None:
    stranger = RestCaller(rest.url)
    waiting.begin('message_list', echo=True, wait=1)
    for _ in range(10):
        post(stranger, 'theirs')
        post(rest, 'elsewhere', queue_name='other')
    assert bodies_of(waiting.answer()) == []
    assert waiting.took > 1


def test_what_becomes_free_by_itself_is_found_at_the_end(tmp_path: pathlib.Path) -> None:
    with Hasty(tmp_path) as server:
        rest = RestCaller(server.url)
        post(rest, 'again')
        lease = {'queue_name': 'orders', 'ttl': 1, 'grace': 60}
        assert rest.call('claim_create', **lease).status == 201
        assert bodies_of(rest.call('claim_create', queue_name='orders', wait=1.5)) == ['again']


def test_other_requests_are_answered_meanwhile(server: ServerProcess, rest: RestCaller) -> None:
    with Subscriber(server.port, COMPACT, identity=rest.identity) as client:
        client.send(client.request('message_list', queue_name='orders', echo=True, wait=20))
        for number in range(10):
            assert client.call('queue_create', queue_name=f'q{number}').status == 201
        post(rest, 'hello')
        assert bodies_of(Answer(200, client.answer()['body'])) == ['hello']


def test_waits_of_a_connection_hold_up_none_of_its_other_requests(
    server: ServerProcess, rest: RestCaller
) -> None:
    with Subscriber(server.port, COMPACT, identity=rest.identity) as client:
        waits = range(10)
        client.send(
            b''.join(
                client.request('message_list', queue_name=f'q{number}', echo=True, wait=20)
                for number in waits
            )
        )
        watch = Stopwatch(server.pid)
        assert client.call('queue_list').body['queues'] == []
        for number in reversed(waits):
            post(rest, number, queue_name=f'q{number}')
            assert bodies_of(Answer(200, client.answer()['body'])) == [number]
        assert watch.seconds() < 10


def test_a_wait_does_not_outlive_its_connection(server: ServerProcess, rest: RestCaller) -> None:
    """Nor does it keep what else the connection holds."""
    assert rest.call('message_list', queue_name='orders', wait=1.5).body['messages'] == []
    for end in (Client.close, Subscriber.reset):
        post(rest, 'held', queue_name='work')
        with Subscriber(server.port, COMPACT, identity=rest.identity) as client:
            assert client.call('queue_consume', queue_name='work').status == 201
            assert client.push()['message']['body'] == 'held'
            client.send(client.request('claim_create', queue_name='orders', wait=20))
            client.ask('ping')
            end(client)
        assert bodies_of(rest.call('claim_create', queue_name='work', wait=20)) == ['held']
        post(rest, 'hello')
        assert bodies_of(rest.call('claim_create', queue_name='orders', wait=20)) == ['hello']


class Crowd:
    """Many clients that wait for messages of one queue over REST."""

    def __init__(self, server: ServerProcess, count: int) -> None:
        self.identity = new_identity()
        self._address = ('127.0.0.1', server.port)
        self._count = count
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Crowd:
        lines = [
            'GET /v2/queues/orders/messages?echo=true&wait=20 HTTP/1.1',
            'Host: localhost',
            *(f'{name}: {value}' for name, value in self.identity.headers().items()),
        ]
        request = ('\r\n'.join(lines) + '\r\n\r\n').encode()
        for _ in range(self._count):
            client = socket.create_connection(self._address, timeout=60)
            client.sendall(request)
            self.sockets.append(client)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self.sockets:
            client.close()

    def answers(self) -> list[tuple[int, Any]]:
        """The status and body of each answer."""
        found = []
        for client in self.sockets:
            response = http.client.HTTPResponse(client)
            response.begin()
            found.append((response.status, json.loads(response.read())))
        return found


def cpu_seconds(server: ServerProcess) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def test_a_thousand_who_wait_cost_nothing_and_are_all_answered(tmp_path: pathlib.Path) -> None:
    seconds = 3.0
    with ServerProcess(tmp_path) as server:
        before = resident(server.pid)
        with Crowd(server, CROWD) as crowd:
            eventually(lambda: is_waiting(server, CROWD))
            time.sleep(1.3)
            grown = resident(server.pid) - before
            began, used = time.monotonic(), cpu_seconds(server)
            time.sleep(seconds)
            share = (cpu_seconds(server) - used) / (time.monotonic() - began)
            rest = RestCaller(server.url, identity=crowd.identity)
            watch = Stopwatch(server.pid)
            post(rest, 'hello')
            answers = crowd.answers()
            took = watch.seconds()
            print(f'{CROWD} clients: {100 * share:.1f} % of a core, {grown / CROWD / 1000:.0f} KB')
            print(f'each, and {1000 * took:.0f} ms to answer them all')
        assert share < 0.02
        assert grown < CROWD * 60_000
        for status, body in answers:
            assert (status, [message['body'] for message in body['messages']]) == (200, ['hello'])
        assert took < 5


def test_a_server_that_stops_answers_whoever_waits_at_once(tmp_path: pathlib.Path) -> None:
    config = '[drivers:transport:gevent]\nclose_timeout = 0.5\n'
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path, config=config))
        crowd = stack.enter_context(Crowd(server, 50))
        default, compact = [
            stack.enter_context(Subscriber(server.port, dialect)) for dialect in (DEFAULT, COMPACT)
        ]
        for client in (default, compact):
            client.send(client.request('message_list', queue_name='orders', wait=20))
        eventually(lambda: is_waiting(server, 52))
        time.sleep(0.2)
        stopper = threading.Thread(target=server.stop)
        watch = Stopwatch(server.pid)
        stopper.start()
        assert crowd.answers() == [(200, {'links': [], 'messages': []})] * 50
        for client in (default, compact):
            answer = client.answer()
            assert (client.dialect.status(answer), answer['body']['messages']) == (200, [])
        took = watch.seconds()
        stopper.join()
        print(f'52 waits ended in {1000 * took:.0f} ms')
        assert took < 5


@pytest.mark.parametrize('marker', ['nonsense', '-1', '7', 'z' * 1000, '5d3c4b7a-0000'])
def test_who_would_wait_after_what_is_no_marker_is_refused(rest: RestCaller, marker: str) -> None:
    post(rest, 'first')
    refused = rest.call('message_list', queue_name='orders', marker=marker, wait=20)
    assert (refused.status, refused.body['code']) == (400, 'unknown_marker')
    # Without waiting it is as with upstream.
    assert rest.call('message_list', queue_name='orders', marker=marker).status == 200
