"""Strangers at the listener by which servers of a fleet tell each other of news."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from tests.callers import RestCaller
from tests.faults.client import COMPACT, read_head, read_to_end
from tests.faults.conftest import LOGGING
from tests.faults.light_load import PROMPT
from tests.functional.test_notifications import Webhook
from tests.functional.test_push import Subscriber, post, subscriptions
from tests.server_process import ServerProcess

# It logs whole tracebacks of webhooks that cannot be reached, by upstream's code.
WEBHOOK = 'zaqar.notification.tasks.webhook'


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server which has nothing to complain of in the end but webhooks."""
    with ServerProcess(tmp_path_factory.mktemp('server'), config=LOGGING) as process:
        yield process
        assert process.stop() == 0
    ours = [line for line in process.output if WEBHOOK not in line]
    assert 'Traceback' not in '\n'.join(ours)


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


@pytest.mark.parametrize('method', ['GET', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
def test_the_listener_takes_nothing_but_posts(
    subscriber: Subscriber, rest: RestCaller, method: str
) -> None:
    place = Place(rest)
    for url in (place.url, place.news, place.news.replace('news', '')):
        assert requests.request(method, url, json=NOTIFICATION, timeout=5).status_code == 404
        assert requests.head(url, timeout=5).status_code == 404
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
