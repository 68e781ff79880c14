"""Strangers at the listener by which servers of a fleet tell each other of news."""

from __future__ import annotations

import pathlib
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
from tests.functional.test_push import Subscriber, eventually, post, subscriptions
from tests.internal_urls import fleet_in_sqlite, in_sqlite, insert, subscribe
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch
from zaqar_gevent.api.push import Source

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

    def __init__(self, server: ServerProcess, subscriber: Subscriber) -> None:
        self.url = in_sqlite(server.state_path)()[subscriber.subscription_id]
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.address = (parts.hostname, parts.port)
        self.news = f'{parts.scheme}://{parts.netloc}/zaqar_gevent/news'

    @property
    def name(self) -> str:
        """The part of the URL that is not secret."""
        return self.url.rpartition('-' if '-' in self.url else '/')[0]


@pytest.fixture
def place(server: ServerProcess, subscriber: Subscriber) -> Place:
    return Place(server, subscriber)


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
    subscriber: Subscriber, rest: RestCaller, place: Place, garbage: bytes
) -> None:
    for url in (place.url, place.news):
        assert requests.post(url, data=garbage, timeout=60).status_code == 400
    assert_unharmed(subscriber, rest)


@pytest.mark.parametrize('method', ['GET', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
def test_the_listener_takes_nothing_but_posts(
    subscriber: Subscriber, rest: RestCaller, place: Place, method: str
) -> None:
    for url in (place.url, place.news, place.news.replace('news', '')):
        assert requests.request(method, url, json=NOTIFICATION, timeout=60).status_code == 404
        assert requests.head(url, timeout=60).status_code == 404
    assert_unharmed(subscriber, rest)


def test_strangers_are_not_heard(subscriber: Subscriber, rest: RestCaller, place: Place) -> None:
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
        answer = requests.post(f'{base}/{one}', json=NOTIFICATION, timeout=60)
        assert 400 <= answer.status_code < 500, one
    told = [[one, 'orders'] for one in strange] + [[token, 'other'], [token, '']]
    answer = requests.post(place.news, json={'news': told}, timeout=60)
    assert (answer.status_code, answer.json()) == (200, {'gone': [one for one, _ in told]})
    assert_unharmed(subscriber, rest)


def test_nothing_is_pushed_but_what_is_in_the_queue(
    subscriber: Subscriber, rest: RestCaller, place: Place
) -> None:
    """Whatever the listener is told by whoever knows the secret, and however often."""
    token = place.url.rpartition('/')[2]
    for _ in range(20):
        assert requests.post(place.url, json=NOTIFICATION, timeout=60).status_code == 200
        answer = requests.post(place.news, json={'news': [[token, 'orders']] * 100}, timeout=60)
        assert answer.json() == {'gone': []}
    assert_unharmed(subscriber, rest)


def test_messages_are_pushed_at_once_while_others_are_still_awaited(
    server: ServerProcess, subscriber: Subscriber, rest: RestCaller, place: Place
) -> None:
    """What was announced and never comes does not delay what comes."""
    for _ in range(3):
        assert requests.post(place.url, json=NOTIFICATION, timeout=60).status_code == 200
    waits = []
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline or len(waits) < 10:
        watch = Stopwatch(server.pid)
        post(rest, 'hello')
        assert subscriber.bodies(1) == ['hello']
        waits.append(watch.seconds())
        time.sleep(0.1)
    # Two may have met something else on a busy machine.
    assert sorted(waits)[-3] < PROMPT


@pytest.mark.parametrize('size', [10**6, 10**8])
def test_a_body_too_large_for_the_listener_is_refused_unread(
    subscriber: Subscriber, rest: RestCaller, place: Place, size: int
) -> None:
    for path in (place.url, place.news):
        with socket.create_connection(place.address, timeout=60) as connection:
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
    subscriber: Subscriber, rest: RestCaller, place: Place, head: bytes
) -> None:
    with socket.create_connection(place.address, timeout=60) as connection:
        connection.sendall(b'POST /zaqar_gevent/news HTTP/1.1\r\nHost: x\r\n' + head)
        assert 400 <= read_head(connection)[0] < 500
    with socket.create_connection(place.address, timeout=60) as connection:
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
    'http://127.0.0.1:1/%7Aaqar_gevent/push/x',
    'http://127.0.0.1:1//zaqar_gevent/push/x',
    'http://127.0.0.1:1/a/../zaqar_gevent/push/x',
    'http://127.0.0.1:1/zaqar_gevent/news',
    'https://127.0.0.1:1/zaqar_gevent/push/x',
    'http://:1/zaqar_gevent/push/x',
]


@pytest.mark.parametrize('url', SIMILAR)
def test_clients_cannot_subscribe_what_looks_like_one_of_ours(
    subscriber: Subscriber, rest: RestCaller, url: str
) -> None:
    created = rest.call('subscription_create', queue_name='orders', subscriber=url)
    assert created.status == 400
    [own] = subscriptions(rest)
    webhook = 'http://127.0.0.1:1/'
    made = rest.call('subscription_create', queue_name='orders', subscriber=webhook).body
    target = {'queue_name': 'orders', 'subscription_id': made['subscription_id']}
    assert rest.call('subscription_update', **target, subscriber=url).status == 400
    assert [row['subscriber'] for row in subscriptions(rest)] == [own['subscriber'], webhook]


def test_a_webhook_whose_address_only_contains_the_path_is_one_like_others(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    for url in ('http://127.0.0.1:1/?/zaqar_gevent/push/x', 'http://127.0.0.1:1/a/zaqar_gevent/'):
        created = rest.call('subscription_create', queue_name='orders', subscriber=url)
        assert created.status == 201
        found = rest.call(
            'subscription_get',
            queue_name='orders',
            subscription_id=created.body['subscription_id'],
        )
        assert found.body['subscriber'] == url
    assert_unharmed(subscriber, rest)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.mark.parametrize('kind', ['unsigned', 'for another queue', 'for another project'])
def test_a_url_that_is_not_signed_for_its_queue_is_told_no_news(
    server: ServerProcess,
    subscriber: Subscriber,
    rest: RestCaller,
    webhook: Webhook,
    kind: str,
) -> None:
    """However it came into the store. As a webhook it is refused by whoever listens there."""
    project_id = rest.identity.project_id
    place = f'{webhook.url}/zaqar_gevent/push/0123456789abcdef'
    fleet = fleet_in_sqlite(server.state_path)
    urls = {
        'unsigned': f'{place}-0',
        'for another queue': fleet.sign(place, Source(project_id, 'other')),
        'for another project': fleet.sign(place, Source('other', 'orders')),
    }
    insert(server.state_path, urls[kind], project_id, 'orders')
    eventually(lambda: post(rest, 'hello') and not webhook.received.empty())
    assert webhook.take()[0] == urls[kind].removeprefix(webhook.url)
    while not webhook.received.empty():
        assert webhook.take()[0] != '/zaqar_gevent/news'


def test_what_only_looks_like_one_of_ours_is_left_alone_where_nobody_is_notified(
    tmp_path: pathlib.Path, webhook: Webhook
) -> None:
    with (
        ServerProcess(tmp_path, config='[storage]\nmessage_pipeline =\n') as server,
        Subscriber(server.port) as subscriber,
    ):
        subscriber.subscribe()
        rest = RestCaller(server.url, identity=subscriber.identity)
        place = f'{webhook.url}/zaqar_gevent/push/0123456789abcdef'
        insert(tmp_path, f'{place}-0', rest.identity.project_id, 'orders')
        subscribe(tmp_path, place, rest.identity.project_id, 'orders')
        eventually(lambda: post(rest, 'hello') and not webhook.received.empty())
        while not webhook.received.empty():
            path, _, news = webhook.take()
            assert path == '/zaqar_gevent/news'
            assert not [token for token, _ in news['news'] if token.endswith('-0')]


def test_the_urls_of_connections_are_not_shown(
    server: ServerProcess, subscriber: Subscriber, rest: RestCaller
) -> None:
    url = in_sqlite(server.state_path)()[subscriber.subscription_id]
    assert '/zaqar_gevent/push/' in url
    for caller in (rest, subscriber):
        [row] = caller.call('subscription_list', queue_name='orders').body['subscriptions']
        target = {'queue_name': 'orders', 'subscription_id': row['id']}
        found = caller.call('subscription_get', **target).body
        assert row['subscriber'] == found['subscriber'] == 'websocket:connection'
        assert url.rpartition('-')[2] not in str(row) + str(found)


def test_somebody_else_who_listens_where_a_server_did_disturbs_nobody(
    server: ServerProcess, subscriber: Subscriber, rest: RestCaller, webhook: Webhook
) -> None:
    place = f'{webhook.url}/zaqar_gevent/push/0123456789abcdef'
    subscribe(server.state_path, place, rest.identity.project_id, 'orders')
    eventually(lambda: post(rest, 'hello') and not webhook.received.empty())
    assert webhook.take()[0] == '/zaqar_gevent/news'
