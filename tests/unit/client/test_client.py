"""The client and a real server: what subscriptions, consumers, claims and calls promise."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client.waiting import wait_until
from tests.server_process import ServerProcess
from zaqar_gevent.client import (
    APIError,
    BadRequest,
    Client,
    Message,
    NotFound,
    Queue,
    Subscription,
    Unsupported,
)
from zaqar_gevent.client.fallback import Transport


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = '[DEFAULT]\nadmin_mode = True\n[signed_url]\nsecret_key = secret\n'
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process


@pytest.fixture(params=['websocket', 'rest'])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, project=uuid.uuid4().hex, transport=request.param) as client:
        yield client


@pytest.fixture
def connected(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, project=uuid.uuid4().hex, transport='websocket') as client:
        yield client


@pytest.fixture
def queue(client: Client) -> Queue:
    queue = client.queue('orders')
    queue.create()
    return queue


def bodies(messages: Iterator[Message] | list[Message]) -> list[Any]:
    return [message.body for message in messages]


def post(queue: Queue, count: int, start: int = 0) -> None:
    for first in range(start, start + count, 100):
        queue.post(list(range(first, min(first + 100, start + count))), ttl=600)


def test_a_queue_is_made_described_changed_and_deleted(client: Client, queue: Queue) -> None:
    assert queue.create() is False
    assert queue.get_metadata()['_max_messages_post_size'] > 0
    changes = [{'op': 'add', 'path': '/metadata/team', 'value': 'red'}]
    assert queue.update(changes)['team'] == 'red'
    assert [one.name for one in client.queues()] == ['orders']
    assert queue.stats() == {'messages': {'claimed': 0, 'free': 0, 'total': 0}}
    post(queue, 3)
    queue.purge(['messages'])
    assert queue.stats()['messages']['total'] == 0
    assert queue.share()['project'] == client.project
    queue.delete()
    assert list(client.queues()) == []


def test_queues_are_listed_over_all_pages(client: Client) -> None:
    names = [f'q{number:02}' for number in range(25)]
    for name in names:
        client.queue(name).create()
    assert [one.name for one in client.queues()] == names
    assert [one.name for one in client.queues(limit=7)] == names
    assert [one.name for one in client.queues(marker='q20')] == names[21:]


def test_messages_are_read_by_id_popped_and_deleted(queue: Queue) -> None:
    [first, *others] = queue.post([{'n': 0}, {'n': 1}, {'n': 2}, {'n': 3}])
    assert queue.get(first).body == {'n': 0}
    assert bodies(queue.get_messages([first, others[0]])) == [{'n': 0}, {'n': 1}]
    assert bodies(queue.pop(2)) == [{'n': 0}, {'n': 1}]
    assert queue.get_messages([first]) == []
    queue.delete_messages([others[1]])
    [left] = queue.messages()
    left.delete()
    assert list(queue.messages()) == []


@pytest.mark.parametrize('body', ['text', 7, None, True, 1.5, {'a': [1]}, 'é' * 1000])
def test_a_body_comes_back_as_it_was(queue: Queue, body: Any) -> None:
    [one] = queue.post(body)
    assert queue.get(one).body == body


def test_a_list_is_many_messages_and_a_list_of_lists_many_lists(queue: Queue) -> None:
    assert len(queue.post([1, 2])) == 2
    [one] = queue.post([[1, 2]])
    assert queue.get(one).body == [1, 2]


def test_a_claim_holds_renews_and_gives_back(client: Client, queue: Queue) -> None:
    post(queue, 3)
    claim = queue.claim(limit=2, ttl=60, grace=60)
    assert len(claim) == 2
    claim.renew(ttl=120)
    assert client.call('claim_get', queue_name='orders', claim_id=claim.id)['ttl'] == 120
    assert len(queue.claim()) == 1
    empty = queue.claim()
    assert (len(empty), empty.id, list(empty)) == (0, None, [])
    claim.release()
    with queue.claim(limit=2) as again:
        next(iter(again)).delete()
    assert queue.stats()['messages']['free'] == 1


def test_a_claim_may_be_waited_for(queue: Queue) -> None:
    began = time.monotonic()
    assert len(queue.claim(wait=0.3)) == 0
    assert 0.25 < time.monotonic() - began < 20
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.claim, wait=20)
        time.sleep(0.2)
        queue.post('work')
        assert bodies(list(waiting.result(60))) == ['work']


def test_topics_and_subscriptions_of_uris(client: Client) -> None:
    topic = client.topic('news')
    assert topic.create()
    subscribed = topic.notify('http://127.0.0.1:9/', ttl=600)
    [found] = topic.subscriptions()
    assert (found['id'], found['subscriber']) == (subscribed, 'http://127.0.0.1:9/')
    topic.unsubscribe(subscribed)
    assert list(topic.subscriptions()) == []
    with topic.subscribe() as subscription:
        topic.post('extra')
        message = subscription.receive(10)
        assert message is not None
        assert (message.body, message.queue_name) == ('extra', 'news')
    assert [one.name for one in client.topics()] == ['news']
    topic.delete()


def test_the_server_says_what_it_can(client: Client) -> None:
    capabilities = client.capabilities()
    assert capabilities.server.startswith('zaqar_gevent/')
    assert capabilities.max_wait > 0
    assert capabilities.idempotency_seconds > 0
    client.ping()


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_operators_have_the_health_pools_and_flavors(
    tmp_path: pathlib.Path, transport: Transport
) -> None:
    config = '[DEFAULT]\nadmin_mode = True\npooling = True\n'
    roles = {'X-Roles': 'admin'}
    with (
        ServerProcess(tmp_path, config=config) as server,
        Client(server.url, project='demo', transport=transport, headers=roles) as client,
    ):
        assert client.health()['catalog_reachable']
        uri = f'sqlite:///{tmp_path / "pool.sqlite"}'
        client.pools.create('fast', uri=uri, weight=10)
        assert client.pools.update('fast', weight=20)['weight'] == 20
        assert client.pools.get('fast')['uri'] == uri
        client.flavors.create('gold', pool_list=['fast'])
        assert client.flavors.get('gold')['pool_list'] == ['fast']
        assert [one['name'] for one in client.flavors.list(detailed=True)] == ['gold']
        client.flavors.delete('gold')
        client.pools.delete('fast')
        assert list(client.pools.list()) == []


def test_a_pre_signed_url_goes_into_the_headers(server: ServerProcess, client: Client) -> None:
    queue = client.queue('shared')
    queue.post('secret')
    signed = queue.share(paths=['messages'], methods=['GET'])
    headers = {
        'URL-Signature': signed['signature'],
        'URL-Expires': signed['expires'],
        'URL-Methods': ','.join(signed['methods']),
        'URL-Paths': ','.join(signed['paths']),
    }
    transport: Transport = 'rest' if client.state == 'polling' else 'websocket'
    with Client(
        server.url, project=client.project, transport=transport, headers=headers
    ) as stranger:
        assert bodies(stranger.queue('shared').messages()) == ['secret']
        with pytest.raises(APIError):
            stranger.queue('shared').post('forbidden')


def test_a_post_given_twice_is_stored_once(client: Client, queue: Queue) -> None:
    arguments = {'queue_name': 'orders', 'messages': [{'body': 1}], 'post_id': 'the-same'}
    assert client.call('message_post', **arguments) == client.call('message_post', **arguments)
    assert bodies(queue.messages()) == [1]


def test_from_now_on_begins_with_the_subscription(queue: Queue) -> None:
    post(queue, 30)
    with queue.subscribe() as subscription:
        post(queue, 3, start=100)
        assert bodies(list(itertools.islice(subscription, 3))) == [100, 101, 102]
        assert subscription.receive(0.3) is None


def test_a_subscription_goes_on_after_the_marker_of_another(queue: Queue) -> None:
    post(queue, 50)
    with queue.subscribe(marker='') as subscription:
        assert bodies(list(itertools.islice(subscription, 27))) == list(range(27))
        marker = subscription.marker
    with queue.subscribe(marker=marker) as subscription:
        assert bodies(list(itertools.islice(subscription, 23))) == list(range(27, 50))


def test_two_subscriptions_of_a_queue_get_everything_each(queue: Queue) -> None:
    post(queue, 45)
    with queue.subscribe(marker='') as one, queue.subscribe(marker='') as other:
        post(queue, 45, start=45)
        for subscription in (one, other):
            assert bodies(list(itertools.islice(subscription, 90))) == list(range(90))


def test_claimed_messages_are_pushed_too(queue: Queue) -> None:
    post(queue, 3)
    queue.claim(limit=2)
    with queue.subscribe(marker='') as subscription:
        assert bodies(list(itertools.islice(subscription, 3))) == [0, 1, 2]


def test_a_subscription_outlives_a_purge(
    connected: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('zaqar_gevent.client.sync.subscription.CHECK_SECONDS', 0.2)
    queue = connected.queue('orders')
    with queue.subscribe(marker='') as subscription:
        queue.post('before')
        assert subscription.receive(10) is not None
        gone = subscription._pushes
        assert gone is not None
        assert subscription.receive(0.5) is None
        assert subscription._pushes is gone
        queue.purge()
        assert subscription.receive(0.5) is None
        assert not gone.is_over
        queue.purge(['subscriptions'])
        assert subscription.receive(0.5) is None
        assert gone.is_over
        queue.post('after')
        message = subscription.receive(10)
        assert message is not None
        assert message.body == 'after'


def test_closing_a_subscription_ends_its_iteration(queue: Queue) -> None:
    subscription = queue.subscribe()
    got: list[Message] = []
    thread = threading.Thread(target=lambda: got.extend(subscription))
    thread.start()
    queue.post('one')
    wait_until(lambda: len(got) == 1, 10, 'it has come')
    subscription.close()
    thread.join(60)
    assert not thread.is_alive()


def waiting_in(subscription: Subscription) -> int:
    return len(subscription._buffer)


def test_a_slow_iterator_does_not_fill_the_memory(connected: Client) -> None:
    queue = connected.queue('orders')
    queue.create()
    with queue.subscribe(marker='', buffer=50) as subscription:
        post(queue, 2000)
        wait_until(lambda: waiting_in(subscription) == 50, 60, 'the buffer is full')
        time.sleep(0.2)
        assert waiting_in(subscription) == 50
        most = 0
        for expected, message in enumerate(itertools.islice(subscription, 2000)):
            assert message.body == expected
            most = max(most, waiting_in(subscription))
        assert most <= 50
        # It has caught up, and is pushed to again.
        post(queue, 5, start=2000)
        assert bodies(list(itertools.islice(subscription, 5))) == list(range(2000, 2005))


def test_long_messages_do_not_fill_the_memory_either(
    connected: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('zaqar_gevent.client.sync.subscription.MAX_BUFFER_BYTES', 500_000)
    queue = connected.queue('orders')
    queue.create()
    with queue.subscribe(marker='') as subscription:
        for number in range(20):
            queue.post({'n': number, 'x': 'x' * 100_000}, ttl=600)
        wait_until(lambda: waiting_in(subscription) == 4, 60, 'the buffer is full')
        time.sleep(0.2)
        assert waiting_in(subscription) == 4
        numbers = [message.body['n'] for message in itertools.islice(subscription, 20)]
        assert numbers == list(range(20))


def test_a_consumer_has_no_more_than_its_credit(queue: Queue) -> None:
    post(queue, 30)
    with queue.consume(credit=5, ttl=60) as consumer:
        held = list(itertools.islice(consumer, 5))
        assert consumer.receive(0.3) is None
        assert consumer.unsettled == queue.stats()['messages']['claimed'] == 5
        assert held[0].ack()
        sixth = consumer.receive(10)
        assert sixth is not None
        assert sixth.body == 5
    counts = queue.stats()['messages']
    assert (counts['claimed'], counts['total']) == (0, 29)


def test_what_is_given_back_comes_again(queue: Queue) -> None:
    queue.post('work')
    with queue.consume(credit=1, ttl=60) as consumer:
        first = consumer.receive(10)
        assert first is not None
        assert first.release()
        again = consumer.receive(10)
        assert again is not None
        assert again.id == first.id
        assert not first.ack()
        assert again.ack()
        assert not again.ack()
    assert queue.stats()['messages']['total'] == 0


def test_a_consumer_that_is_closed_gives_back_what_it_has(queue: Queue) -> None:
    post(queue, 10)
    consumer = queue.consume(credit=10, ttl=60)
    done = consumer.receive(10)
    assert done is not None
    done.ack()
    consumer.close()
    assert list(consumer) == []
    stats = queue.stats()['messages']
    assert (stats['claimed'], stats['free']) == (0, 9)


def test_a_message_may_be_settled_by_any_thread(queue: Queue) -> None:
    post(queue, 60)
    with queue.consume(credit=8, ttl=60) as consumer, ThreadPoolExecutor(8) as pool:
        settled = [pool.submit(message.ack) for message in itertools.islice(consumer, 60)]
        assert all(one.result(10) for one in settled)
    assert queue.stats()['messages']['total'] == 0


def test_consumers_share_a_queue(queue: Queue) -> None:
    post(queue, 60)
    done: list[Any] = []

    def work() -> None:
        with queue.consume(credit=4, ttl=60) as consumer:
            while message := consumer.receive(1):
                message.ack()
                done.append(message.body)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(60))


def test_only_what_a_consumer_has_got_can_be_given_back(queue: Queue) -> None:
    [one] = queue.post('body')
    with pytest.raises(Unsupported):
        queue.get(one).release()


def test_many_threads_share_a_client(client: Client, queue: Queue) -> None:
    def work(number: int) -> list[str]:
        own = client.queue(f'queue-{number % 4}')
        return own.post([{'n': number}, {'n': number}], ttl=60)

    with ThreadPoolExecutor(16) as pool:
        ids = [one for posted in pool.map(work, range(200)) for one in posted]
    assert len(set(ids)) == 400
    totals = [client.queue(f'queue-{number}').stats()['messages']['total'] for number in range(4)]
    assert totals == [100] * 4


def test_errors_are_those_of_the_server(client: Client, queue: Queue) -> None:
    with pytest.raises(NotFound) as missing:
        queue.get('no-such-message')
    assert (missing.value.status, missing.value.code) == (404, 'not_found')
    assert missing.value.description
    with pytest.raises(BadRequest):
        queue.post('brief', ttl=1)


def test_an_argument_that_is_missing_is_an_error_wherever(client: Client) -> None:
    with pytest.raises((BadRequest, TypeError)):
        client.call('message_get', queue_name='orders')


@pytest.mark.parametrize(
    ('url', 'options'),
    [
        ('ftp://host', {}),
        ('no url', {}),
        (None, {}),
        ('http://host', {'project': None}),
        ('http://host', {'engine': 'steam'}),
        ('http://host', {'transport': 'pigeon'}),
        ('http://host', {'encoding': 'xml'}),
        ('http://host', {'token': 'a', 'session': object()}),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(url: str | None, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'.'):
        Client(url, **{'project': 'p', **options})
