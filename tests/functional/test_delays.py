"""A delayed message reaches everybody when it is due: not before, once, and nobody misses it."""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, RestCaller, connect, new_identity
from tests.faults.client import COMPACT, DEFAULT, Dialect
from tests.functional.test_consumers import Worker
from tests.functional.test_push import Subscriber, eventually
from tests.functional.test_webhooks import failed, forward, notifying
from tests.receivers import Receivers
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

DELAY = 1
# A quiet machine needs a few milliseconds, see `late`; a busy one may take longer.
LATE_SECONDS = 15.0
CROWD = 30
NOTIFIES = '[storage]\nmessage_pipeline = zaqar.notification.notifier\n'


class Timed:
    """Delayed messages of a project, and when they came.

    came: when each body came to each observer, in seconds of `time.monotonic`.
    """

    def __init__(self, rest: RestCaller) -> None:
        self.rest = rest
        self.came: dict[str, list[tuple[Any, float]]] = {}
        self._due: dict[Any, tuple[float, float]] = {}

    def post(self, queue: str, *bodies: Any, delay: int = 0) -> None:
        messages = [{'body': body, 'ttl': 300, 'delay': delay} for body in bodies]
        before = time.monotonic()
        answer = self.rest.call('message_post', queue_name=queue, messages=messages)
        assert answer.status == 201, answer.body
        for body in bodies:
            self._due[body] = (before + delay, time.monotonic() + delay)

    def saw(self, observer: str, body: Any, at: float | None = None) -> None:
        self.came.setdefault(observer, []).append((body, time.monotonic() if at is None else at))

    def check(self, observer: str, *bodies: Any, within: float = LATE_SECONDS) -> None:
        """Each of these came once, none before its time, and none much later."""
        came = self.came.get(observer, [])
        assert sorted(body for body, _ in came) == sorted(bodies), observer
        late = 0.0
        for body, at in came:
            earliest, latest = self._due[body]
            assert at >= earliest, f'{observer} had {body} {earliest - at:.3f} s early'
            late = max(late, at - latest)
        print(f'{observer}: at most {1000 * late:.0f} ms late')
        assert late < within


@contextlib.contextmanager
def in_background(*jobs: Callable[[], None]) -> Iterator[None]:
    """Jobs that end within the block, or soon after it."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope='module', params=['embedded', 'redis'])
def server(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that tells webhooks as well, on each store."""
    path = tmp_path_factory.mktemp('delays')
    config = notifying(path, '')
    if request.param == 'redis':
        config = f'{ON_REDIS.format(redis=redis.patient_uri)}{NOTIFIES}'
    with ServerProcess(path, config=config) as process:
        yield process


@pytest.fixture
def timed(server: ServerProcess) -> Iterator[Timed]:
    rest = RestCaller(server.url)
    yield Timed(rest)
    rest.close()


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_lists_by_marker_and_waiting_claims_get_it_when_it_is_due(
    server: ServerProcess, timed: Timed, transport: str
) -> None:
    delayed, others = [f'd{n}' for n in range(5)], [f'o{n}' for n in range(CROWD)]
    following = connect(transport, server.url, server.websocket_url, timed.rest.identity)
    claiming = connect(transport, server.url, server.websocket_url, timed.rest.identity)

    def follow() -> None:
        marker: dict[str, str] = {}
        while len(timed.came.get('follower', ())) < len(delayed + others):
            answer = following.call(
                'message_list', queue_name='read', echo=True, wait=20, limit=3, **marker
            )
            assert answer.body['messages'], 'the wait ended without a message'
            marker = {'marker': answer.body['marker']}
            for message in answer.body['messages']:
                timed.saw('follower', message['body'])

    def claim() -> None:
        answer = claiming.call('claim_create', queue_name='work', wait=20)
        for message in answer.body['messages']:
            timed.saw('claimer', message['body'])

    with in_background(follow, claim):
        timed.post('read', *delayed, delay=DELAY)
        timed.post('work', 'claimed', delay=DELAY)
        for body in others:
            timed.post('read', body)
            time.sleep(1.5 * DELAY / CROWD)
    timed.check('follower', *delayed, *others)
    timed.check('claimer', 'claimed')
    for caller in (following, claiming):
        caller.close()


@pytest.mark.parametrize('dialect', [COMPACT, DEFAULT], ids=['compact', 'default'])
def test_subscriptions_by_marker_consumers_and_webhooks_get_it_when_it_is_due(
    server: ServerProcess, timed: Timed, dialect: Dialect
) -> None:
    identity = timed.rest.identity
    timed.post('orders', 'first')
    with (
        Receivers() as receivers,
        Subscriber(server.port, dialect, identity=identity) as resumed,
        Worker(server.port, identity=identity) as worker,
    ):

        def subscribe() -> None:
            for _ in range(4):
                timed.saw('subscriber', resumed.body_of(resumed.push()))

        def consume() -> None:
            timed.saw('consumer', worker.push()['message']['body'])

        webhook = {'subscriber': receivers.url('prompt/1'), 'ttl': 300, 'options': {}}
        made = timed.rest.call('subscription_create', queue_name='orders', **webhook)
        assert made.status == 201
        timed.post('orders', 'd0', 'd1', delay=DELAY)
        timed.post('orders', 'd2', delay=2 * DELAY)
        page = timed.rest.call('message_list', queue_name='orders', echo=True, limit=1).body
        assert page['messages'][0]['body'] == 'first'
        resumed.subscribe(marker=page['marker'])
        worker.consume('work')
        with in_background(subscribe, consume):
            timed.post('orders', 'after')
            timed.post('work', 'job', delay=DELAY)
        eventually(lambda: len(receivers.look().get('prompt/1', ())) >= 4)
        assert resumed.has_nothing_more()
        for one in receivers.look()['prompt/1']:
            timed.saw('webhook', one.document['body'], one.at)
            told = one.document
            assert told.get('delay') == {'after': None, 'd2': 2 * DELAY}.get(told['body'], DELAY)
    timed.check('subscriber', 'd0', 'd1', 'd2', 'after')
    timed.check('webhook', 'd0', 'd1', 'd2', 'after')
    timed.check('consumer', 'job')


def test_a_delayed_message_keeps_its_id_and_is_listed_on_request(timed: Timed) -> None:
    rest = timed.rest
    timed.post('orders', 'later', delay=3 * DELAY)
    timed.post('orders', 'now')
    listed = {'queue_name': 'orders', 'echo': True}
    both = rest.call('message_list', **listed, include_delayed=True).body['messages']
    both.sort(key=lambda message: str(message['body']))
    assert [message['body'] for message in both] == ['later', 'now']
    found = rest.call('message_get', queue_name='orders', message_id=both[0]['id']).body
    assert found['messages']['body'] == 'later'
    stats = rest.call('queue_get_stats', queue_name='orders').body['messages']
    assert (stats['free'], stats['total']) == (2, 2)

    def listed_now() -> list[Any]:
        return list(rest.call('message_list', **listed).body['messages'])

    eventually(lambda: len(listed_now()) == 2)
    after = listed_now()
    assert [message['body'] for message in after] == ['now', 'later']
    assert [message['id'] for message in after] == [both[1]['id'], both[0]['id']]
    popped = rest.call('message_delete_many', queue_name='orders', pop=2).body['messages']
    assert [sorted(message) for message in popped] == [sorted(popped[0])] * 2
    assert 'position' not in popped[1]


def test_a_deleted_message_is_never_due(timed: Timed) -> None:
    with Receivers() as receivers:
        webhook = {'subscriber': receivers.url('prompt/1'), 'ttl': 300, 'options': {}}
        timed.rest.call('subscription_create', queue_name='orders', **webhook)
        timed.post('orders', 'gone', delay=3 * DELAY)
        listed = timed.rest.call(
            'message_list', queue_name='orders', echo=True, include_delayed=True
        ).body['messages']
        timed.rest.call('message_delete', queue_name='orders', message_id=listed[0]['id'])
        timed.post('orders', 'kept', delay=3 * DELAY)
        eventually(lambda: receivers.look().get('prompt/1'))
        [only] = receivers.look()['prompt/1']
        assert only.document['body'] == 'kept'


def test_webhooks_are_told_after_a_restart_that_nobody_notices(tmp_path: pathlib.Path) -> None:
    """Nobody makes a request to the new server."""
    identity, config = new_identity(), notifying(tmp_path, '')
    with Receivers() as receivers:
        with ServerProcess(tmp_path, config=config) as server:
            timed = Timed(RestCaller(server.url, identity=identity))
            webhook = {'subscriber': receivers.url('prompt/1'), 'ttl': 300, 'options': {}}
            timed.rest.call('subscription_create', queue_name='orders', **webhook)
            timed.post('orders', 'soon', delay=DELAY)
            timed.post('orders', 'later', delay=4 * DELAY)
        with ServerProcess(tmp_path, config=config):
            eventually(lambda: len(receivers.look().get('prompt/1', ())) >= 2)
        for one in receivers.look()['prompt/1']:
            timed.saw('webhook', one.document['body'], one.at)
    assert [body for body, _ in timed.came['webhook']] == ['soon', 'later']
    # The first was due while no server ran.
    timed.check('webhook', 'soon', 'later', within=60)


def test_servers_that_share_a_file_tell_each_others_clients_once(tmp_path: pathlib.Path) -> None:
    identity, config = new_identity(), notifying(tmp_path, '')
    delayed = [f'd{n}' for n in range(20)]
    with (
        Receivers() as receivers,
        ServerProcess(tmp_path / 'a', config=config) as one,
        ServerProcess(tmp_path / 'b', config=config) as other,
        Subscriber(one.port, identity=identity) as first,
        Subscriber(other.port, identity=identity) as second,
    ):
        timed = Timed(RestCaller(one.url, identity=identity))
        webhook = {'subscriber': receivers.url('prompt/1'), 'ttl': 300, 'options': {}}
        timed.rest.call('subscription_create', queue_name='orders', **webhook)
        for subscriber in (first, second):
            subscriber.subscribe()
        # Until both know of all subscriptions.
        time.sleep(1.2)
        timed.post('orders', *delayed, delay=DELAY)

        def listen(name: str, subscriber: Subscriber) -> Callable[[], None]:
            def job() -> None:
                for _ in delayed:
                    timed.saw(name, subscriber.body_of(subscriber.push()))

            return job

        with in_background(listen('first', first), listen('second', second)):
            pass
        eventually(lambda: len(receivers.look().get('prompt/1', ())) >= len(delayed))
        for told in receivers.look()['prompt/1']:
            timed.saw('webhook', told.document['body'], told.at)
        for observer in ('first', 'second', 'webhook'):
            timed.check(observer, *delayed)


def test_webhooks_that_lead_back_are_recognised_after_a_delay(
    server: ServerProcess, timed: Timed
) -> None:
    rest = timed.rest
    rest.call('queue_create', queue_name='q', metadata={'_default_message_delay': DELAY})
    target = forward(server, rest, 'q', 'q')
    timed.post('q', 'round', delay=DELAY)
    assert failed(rest, target) == 'it answered 400'
    stats = rest.call('queue_get_stats', queue_name='q').body['messages']
    assert stats['total'] == 1
