"""Subscribers that do not read, strangers at the listener, and stores that fail meanwhile."""

from __future__ import annotations

import contextlib
import pathlib
import selectors
import socket
import sqlite3
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.callers import Identity, RestCaller, new_identity
from tests.faults.client import COMPACT, DEFAULT, Dialect, read_head, read_to_end
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak
from tests.functional.test_consumers import Worker, stats
from tests.functional.test_notifications import Webhook
from tests.functional.test_push import (
    Subscriber,
    contents,
    eventually,
    post,
    subscriptions,
)
from tests.functional.test_push_between_workers import patient_uri
from tests.functional.test_stores import ON_REDIS
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess

pytestmark = pytest.mark.slow

TOO_SLOW = 4008
OTHERS = 200
EACH_BYTES = 1_000
POSTS_PER_SECOND = 25
FLOOD_BYTES = 200_000
FLOODS_PER_SECOND = 10


class Audience(threading.Thread):
    """Many subscribers, read in one thread.

    latencies: from each post to each push, in seconds. floods: how many large messages were posted
        to another queue beside.
    """

    def __init__(self, port: int, identity: Identity, count: int) -> None:
        super().__init__(daemon=True)
        self.latencies: list[float] = []
        self.floods = 0
        self._clients = [Subscriber(port, COMPACT, identity=identity) for _ in range(count)]
        for client in self._clients:
            client.subscribe('small')
        self._is_over = False

    def __len__(self) -> int:
        return len(self._clients)

    def __enter__(self) -> Audience:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        self.join()
        for client in self._clients:
            client.socket.close()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while not self._is_over:
                for key, _ in selector.select(0.1):
                    self._take(key.data)

    def _take(self, client: Subscriber) -> None:
        push = client.push()
        self.latencies.append(time.monotonic() - push['message']['body']['posted_at'])

    def p99_of(self, seconds: float, rest: RestCaller) -> float:
        """Post for that long, to them and to whoever listens to the flood."""
        self.latencies.clear()
        posted = self.floods = 0
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if posted <= (now - began) * POSTS_PER_SECOND:
                post(rest, {'posted_at': now, 'fill': 'x' * EACH_BYTES}, queue_name='small')
                posted += 1
            elif self.floods <= (now - began) * FLOODS_PER_SECOND:
                post(rest, {'number': self.floods, 'fill': 'x' * FLOOD_BYTES}, queue_name='flood')
                self.floods += 1
            else:
                time.sleep(0.002)
        eventually(lambda: len(self.latencies) == posted * len(self))
        quantiles = statistics.quantiles(self.latencies, n=100)
        rate = len(self.latencies) * EACH_BYTES / seconds / MB
        print(f'{rate:.1f} MB/s: p50 {1000 * quantiles[49]:.1f}, p99 {1000 * quantiles[98]:.1f} ms')
        return quantiles[98]


@pytest.fixture
def busy(tmp_path: pathlib.Path) -> Iterator[tuple[ServerProcess, Audience, RestCaller]]:
    """A server with an audience, and somebody who posts to it."""
    config = '[drivers:transport:gevent]\nclose_timeout = 30\n'
    identity = new_identity()
    with (
        ServerProcess(tmp_path, config=config) as server,
        Audience(server.port, identity, OTHERS) as audience,
    ):
        yield server, audience, RestCaller(server.url, identity=identity)


@contextlib.contextmanager
def who_does_not_read(port: int, dialect: Dialect, identity: Identity) -> Iterator[Subscriber]:
    """A subscriber to the flood that reads nothing, and has the system receive little for it."""
    with Subscriber(port, dialect, identity=identity, receive_buffer=4096) as client:
        client.subscribe('flood')
        yield client


def test_who_does_not_read_costs_the_others_nothing(
    busy: tuple[ServerProcess, Audience, RestCaller],
) -> None:
    """Neither memory nor time; of three tries, for a busy machine has other things to do."""
    server, audience, rest = busy
    for _ in range(3):
        without = audience.p99_of(2, rest)
        with contextlib.ExitStack() as stack:
            for dialect in (DEFAULT, COMPACT):
                stack.enter_context(who_does_not_read(server.port, dialect, rest.identity))
            peak = Peak(server.pid)
            p99 = audience.p99_of(5, rest)
            print(f'the server has grown by {peak.growth / MB:.1f} MB at most')
            assert peak.growth < 30 * MB
        if p99 < 1.5 * without + 0.005:
            return
    raise AssertionError(f'p99 is {1000 * p99:.0f} ms, and {1000 * without:.0f} ms without')


def test_who_does_not_read_is_paused_or_given_up(
    busy: tuple[ServerProcess, Audience, RestCaller],
) -> None:
    server, audience, rest = busy
    with (
        who_does_not_read(server.port, DEFAULT, rest.identity) as default,
        who_does_not_read(server.port, COMPACT, rest.identity) as compact,
    ):
        audience.p99_of(3, rest)
        seen, paused = numbers_until_paused(compact)
        assert paused['subscription_id'] == compact.subscription_id
        assert 0 < len(seen) < audience.floods
        assert numbers_until_closed(default) == list(range(len(seen)))
        target = {'subscription_id': compact.subscription_id}
        assert compact.call('subscription_resume', **target).status == 204
        post(rest, {'number': 'last'}, queue_name='flood')
        while seen[-1:] != ['last']:
            seen.append(compact.body_of(compact.push())['number'])
        assert seen == [*range(audience.floods), 'last']


def numbers_until_paused(client: Subscriber) -> tuple[list[Any], Any]:
    """What a client that reads again is pushed, up to the pause; and that."""
    seen, markers = [], [None]
    while (push := client.push())['push'] != 'paused':
        seen.append(push['message']['body']['number'])
        markers.append(push['marker'])
    assert push['marker'] == markers[-1]
    return seen, push


def numbers_until_closed(client: Subscriber) -> list[Any]:
    """The same for a client whose connection is closed instead."""
    seen = []
    while (received := client.receive()).opcode == client.dialect.opcode:
        seen.append(client.dialect.decode(received.payload)['body']['number'])
    assert int.from_bytes(received.payload[:2]) == TOO_SLOW
    return seen


def test_rest_is_served_promptly_while_a_crowd_is_pushed_to(tmp_path: pathlib.Path) -> None:
    identity = new_identity()
    with (
        ServerProcess(tmp_path) as server,
        Audience(server.port, identity, 5 * OTHERS) as audience,
    ):
        rest = RestCaller(server.url, identity=identity)
        with LightLoad(server.port) as load:
            for _ in range(3):
                bodies = [{'posted_at': time.monotonic()}] * 20
                post(rest, *bodies, queue_name='small')
            eventually(lambda: len(audience.latencies) == 60 * len(audience), within=30)
        assert load.p99 < PROMPT


@pytest.fixture
def subscriber(server: ServerProcess) -> Iterator[Subscriber]:
    """A client that subscribes to a queue, with nothing in it."""
    with Subscriber(server.port, COMPACT) as subscriber:
        subscriber.subscribe()
        yield subscriber


@pytest.fixture
def rest(server: ServerProcess, subscriber: Subscriber) -> RestCaller:
    return RestCaller(server.url, identity=subscriber.identity)


class Place:
    """Where other servers reach a subscriber.

    url: its own. news: that of the process that it is connected to.
    """

    def __init__(self, rest: RestCaller) -> None:
        [row] = subscriptions(rest)
        self.url: str = row['subscriber']
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)
        self.news = f'{parts.scheme}://{parts.netloc}/zaqar_gevent/news'

    @property
    def name(self) -> str:
        """The part of the URL that is not secret."""
        return self.url.rpartition('-' if '-' in self.url else '/')[0]


NOTIFICATION = {
    'body': 'forged',
    'ttl': 300,
    'queue_name': 'orders',
    'Message_Type': 'Notification',
}
GARBAGE: list[bytes] = [
    b'',
    b'garbage',
    b'\xff\xfe',
    b'null',
    b'[]',
    b'{}',
    b'{"queue_name": 7}',
    b'{"queue_name": null}',
    b'{"news": {}}',
    b'{"news": [[]]}',
    b'{"news": [["a"]]}',
    b'{"news": [["a", "b", "c"]]}',
    b'{"news": [[1, 2]]}',
    b'{"news": [["a", null]]}',
    b'[' * 100_000,
    b'{"queue_name": "orders", "queue_name": "orders"}',
]


@pytest.mark.parametrize('garbage', GARBAGE, ids=lambda garbage: repr(garbage[:30]))
def test_garbage_told_to_the_listener_is_refused(
    subscriber: Subscriber, rest: RestCaller, garbage: bytes
) -> None:
    place = Place(rest)
    for url in (place.url, place.news):
        assert requests.post(url, data=garbage, timeout=5).status_code == 400
    assert_unharmed(subscriber, rest)


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'BREW'])
def test_the_listener_takes_nothing_but_posts(
    subscriber: Subscriber, rest: RestCaller, method: str
) -> None:
    place = Place(rest)
    for url in (place.url, place.news, place.news.replace('news', '')):
        assert requests.request(method, url, json=NOTIFICATION, timeout=5).status_code == 404
    assert_unharmed(subscriber, rest)


def test_strangers_are_not_heard(subscriber: Subscriber, rest: RestCaller) -> None:
    place = Place(rest)
    base, _, token = place.url.rpartition('/')
    name, _, secret = token.partition('-')
    strange = ['', 'x', name, f'{name}-', f'{name}-x', f'{name}-{secret[:-1]}', f'{name}-ß€']
    strange += [
        f'x-{secret}',
        f'-{secret}',
        secret,
        f'{token}/',
        f'{token}/x',
        f'../{token}',
        '%00',
    ]
    for one in strange:
        answer = requests.post(f'{base}/{one}', json=NOTIFICATION, timeout=5)
        assert 400 <= answer.status_code < 500, one
    told = [[one, 'orders'] for one in strange] + [[token, 'other'], [token, '']]
    answer = requests.post(place.news, json={'news': told}, timeout=5)
    assert (answer.status_code, answer.json()) == (200, {'gone': [one for one, _ in told]})
    assert_unharmed(subscriber, rest)


def test_nothing_is_pushed_but_what_is_in_the_queue(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    """Whatever the listener is told by whoever knows the secret, and however often."""
    place = Place(rest)
    token = place.url.rpartition('/')[2]
    for _ in range(20):
        assert requests.post(place.url, json=NOTIFICATION, timeout=5).status_code == 200
        answer = requests.post(place.news, json={'news': [[token, 'orders']] * 100}, timeout=5)
        assert answer.json() == {'gone': []}
    assert_unharmed(subscriber, rest)


def test_messages_are_pushed_at_once_while_others_are_still_awaited(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    """What was announced and never comes does not delay what comes."""
    place = Place(rest)
    for _ in range(3):
        assert requests.post(place.url, json=NOTIFICATION, timeout=5).status_code == 200
    waits = []
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        began = time.monotonic()
        post(rest, 'hello')
        assert subscriber.bodies(1) == ['hello']
        waits.append(time.monotonic() - began)
        time.sleep(0.1)
    assert max(waits) < PROMPT


@pytest.mark.parametrize('size', [10**6, 10**8])
def test_a_body_too_large_for_the_listener_is_refused_unread(
    subscriber: Subscriber, rest: RestCaller, size: int
) -> None:
    place = Place(rest)
    for path in (place.url, place.news):
        with socket.create_connection(place.address, timeout=5) as connection:
            head = (
                f'POST {urlsplit(path).path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n'
            )
            connection.sendall(head.encode())
            assert read_head(connection)[0] == 413
    assert_unharmed(subscriber, rest)


@pytest.mark.parametrize(
    'head',
    [
        b'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
        b'\r\n',
        b'Content-Length: -1\r\n\r\n',
        b'Content-Length: 1e3\r\n\r\n',
        b'Content-Length: 10\r\nContent-Length: 20\r\n\r\n',
        b'garbage\r\n\r\n',
        b'Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    ],
    ids=repr,
)
def test_a_request_that_is_none_is_refused_by_the_listener(
    subscriber: Subscriber, rest: RestCaller, head: bytes
) -> None:
    place = Place(rest)
    with socket.create_connection(place.address, timeout=5) as connection:
        connection.sendall(b'POST /zaqar_gevent/news HTTP/1.1\r\nHost: x\r\n' + head)
        assert 400 <= read_head(connection)[0] < 500
    with socket.create_connection(place.address, timeout=5) as connection:
        connection.sendall(b'\x16\x03\x01\x02\x00' * 10 + head)
        connection.shutdown(socket.SHUT_WR)
        assert b' 400 ' in read_to_end(connection)[:20]
    assert_unharmed(subscriber, rest)


def assert_unharmed(subscriber: Subscriber, rest: RestCaller) -> None:
    """Nothing was pushed, and what is posted still is."""
    assert subscriber.has_nothing_more()
    post(rest, 'hello')
    assert subscriber.bodies(1) == ['hello']


SIMILAR = [
    'http://127.0.0.1/zaqar_gevent/push/x',
    'http://127.0.0.1:99999/zaqar_gevent/push/x',
    'http://127.0.0.1:1/zaqar_gevent/push/',
    'http://user:secret@127.0.0.1:1/zaqar_gevent/push/x',
    'http://127.0.0.1:x/zaqar_gevent/push/x',
    'http://nowhere.invalid:80/zaqar_gevent/push/x',
    'http://127.0.0.1:1/?/zaqar_gevent/push/worker',
    'http://:1/zaqar_gevent/push/x',
]


@pytest.mark.parametrize('url', SIMILAR)
def test_a_subscriber_that_only_looks_like_one_of_ours_disturbs_nobody(
    subscriber: Subscriber, rest: RestCaller, url: str
) -> None:
    created = rest.call('subscription_create', queue_name='orders', subscriber=url)
    assert created.status in (201, 400)
    for number in range(5):
        post(rest, number)
    assert subscriber.bodies(5) == list(range(5))


def test_somebody_else_who_listens_where_a_server_did_disturbs_nobody(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    webhook = Webhook()
    url = f'{webhook.url}/zaqar_gevent/push/0-0'
    assert rest.call('subscription_create', queue_name='orders', subscriber=url).status == 201
    for number in range(20):
        post(rest, number)
    assert webhook.take()[0] == '/zaqar_gevent/news'
    assert subscriber.bodies(20) == list(range(20))
    webhook.close()


class Persistent(threading.Thread):
    """Posts messages one after the other, each until it is taken.

    refused: how many times one was not. posted: how many messages were.
    """

    def __init__(self, url: str, identity: Identity) -> None:
        super().__init__(daemon=True)
        self.refused = self.posted = 0
        self.is_over = False
        self._caller = RestCaller(url, identity=identity)

    def run(self) -> None:
        while not self.is_over:
            messages = [{'body': self.posted, 'ttl': 300}]
            status, _ = self._caller.call('message_post', queue_name='orders', messages=messages)
            if status == 201:
                self.posted += 1
            else:
                self.refused += 1
            time.sleep(0.01)


@contextlib.contextmanager
def an_outage(server: ServerProcess, marker: str, identity: Identity) -> Iterator[Persistent]:
    """Subscribers and a poster before, during and after an outage, which is the caller's."""
    with contextlib.ExitStack() as stack:
        default = stack.enter_context(Subscriber(server.port, DEFAULT, identity=identity))
        default.subscribe(marker=marker)
        compact = stack.enter_context(Subscriber(server.port, COMPACT, identity=identity))
        compact.subscribe(marker=marker)
        for client in (default, compact):
            client.socket.settimeout(30)
        poster = Persistent(server.url, identity)
        poster.start()
        eventually(lambda: poster.posted > 20)
        yield poster
        again = poster.posted + 20
        eventually(lambda: poster.posted > again, within=30)
        poster.is_over = True
        poster.join()
        rest = RestCaller(server.url, identity=identity)
        stored = contents(rest)[1:]
        assert compact.bodies(len(stored)) == [message['body'] for message in stored]
        assert default.bodies(len(stored)) == [message['body'] for message in stored]
        assert compact.has_nothing_more()
        assert default.has_nothing_more()
        assert {message['body'] for message in stored} == set(range(poster.posted))


def test_a_file_that_is_locked_for_some_time_costs_no_message(tmp_path: pathlib.Path) -> None:
    """The file of the store, longer than the server waits; leases are kept and settled after."""
    with ServerProcess(tmp_path) as server, Worker(server.port) as worker:
        rest = RestCaller(server.url, identity=worker.identity)
        [first] = post(rest, 'first')
        post(rest, *range(10), queue_name='work')
        worker.consume('work', credit=10)
        held = worker.messages(10)
        with an_outage(server, first, worker.identity) as poster:
            lock = sqlite3.connect(tmp_path / 'zaqar.sqlite', isolation_level=None)
            lock.execute('BEGIN IMMEDIATE')
            worker.socket.settimeout(30)
            assert worker.settle('message_ack', *held[:5]) == 503
            assert poster.refused > 0
            lock.execute('ROLLBACK')
            lock.close()
            worker.ack(*held[:5])
            worker.release(*held[5:])
            assert len(worker.messages(5)) == 5
            assert stats(rest, 'work') == (0, 5)


def test_a_redis_that_is_gone_for_some_time_costs_no_message(tmp_path: pathlib.Path) -> None:
    redis = RedisProcess(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(redis)
        impatient = 'max_reconnect_attempts = 2\n    reconnect_sleep = 0.1\n'
        config = ON_REDIS.format(redis=patient_uri(redis))
        config = config.replace(
            '    [drivers:management', f'    {impatient}    [drivers:management'
        )
        server = stack.enter_context(ServerProcess(tmp_path, config=f'{config}{impatient}'))
        worker = stack.enter_context(Worker(server.port))
        rest = RestCaller(server.url, identity=worker.identity)
        [first] = post(rest, 'first')
        worker.consume('work', credit=2)
        with an_outage(server, first, worker.identity) as poster:
            redis.client.shutdown(save=True)
            eventually(lambda: poster.refused > 2)
            redis.__exit__()
            stack.enter_context(redis)
            eventually(lambda: rest.call('ping_node').status == 204)
        post(rest, *range(2), queue_name='work')
        worker.ack(*worker.messages(2))
        assert stats(rest, 'work') == (0, 0)
