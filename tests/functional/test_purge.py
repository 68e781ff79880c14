"""A purge removes what was there when it began, whatever is posted or subscribed meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, Identity, RestCaller, WebSocketCaller, connect, new_identity
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch
from tests.stores import serve_on

PRODUCERS = 4
EARLIER = 2000
MOST_SECONDS = 20


@pytest.fixture(scope='module', params=['embedded', 'redis', 'pooled'])
def server(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with serve_on(request.param, redis, tmp_path_factory.mktemp(request.param)) as process:
        yield process


@pytest.fixture(params=TRANSPORTS)
def api(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Any]:
    caller = connect(request.param, server.url, server.websocket_url)
    yield caller
    caller.close()


def post(api: Any, *bodies: Any, **more: Any) -> list[str]:
    ids: list[str] = []
    for start in range(0, len(bodies), 20):
        some = bodies[start : start + 20]
        messages = [{'body': body, 'ttl': 3600, **more} for body in some]
        answer = api.call('message_post', queue_name='orders', messages=messages)
        assert answer.status == 201, answer.body
        ids += answer.body['message_ids']
    return ids


def bodies(api: Any) -> list[Any]:
    """All bodies in the queue, oldest first."""
    found: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = api.call('message_list', queue_name='orders', echo=True, limit=20, **more).body
        if not page['messages']:
            return found
        found += [message['body'] for message in page['messages']]
        more = {'marker': page['marker']}


class Producer:
    """Posts its name and a number, one after the other, until it is stopped."""

    def __init__(self, name: str, server: ServerProcess, identity: Identity) -> None:
        self.acknowledged = -1
        self._is_stopped = threading.Event()
        self._name = name
        self._caller = WebSocketCaller(server.websocket_url, binary=True, identity=identity)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            post(self._caller, [self._name, self.acknowledged + 1])
            self.acknowledged += 1

    def stop(self) -> int:
        """The number of the last message."""
        self._is_stopped.set()
        self._thread.join()
        self._caller.close()
        return self.acknowledged


def test_it_ends_while_others_post_and_leaves_what_they_posted(server: ServerProcess) -> None:
    identity = new_identity()
    rest = RestCaller(server.url, identity=identity)
    post(rest, *(['earlier', number] for number in range(EARLIER)))
    producers = {name: Producer(name, server, identity) for name in 'abcd'[:PRODUCERS]}
    try:
        while any(producer.acknowledged < 20 for producer in producers.values()):
            time.sleep(0.01)
        before = {name: producer.acknowledged for name, producer in producers.items()}
        watch = Stopwatch(server.pid)
        assert rest.call('queue_purge', queue_name='orders').status == 204
        assert watch.seconds() < MOST_SECONDS
        after = {name: producer.acknowledged for name, producer in producers.items()}
    finally:
        last = {name: producer.stop() for name, producer in producers.items()}
    left: dict[str, list[int]] = {name: [] for name in producers}
    for name, number in bodies(rest):
        left[name].append(number)
    for name, numbers in left.items():
        # All from some message on, which came neither before the purge nor after its end.
        assert numbers == list(range(numbers[0], last[name] + 1))
        assert before[name] < numbers[0] <= after[name] + 1
    assert sum(after.values()) > sum(before.values())
    # Some of what came while it was going on, the server being served to others.
    assert any(numbers[0] <= after[name] for name, numbers in left.items())


def test_what_is_claimed_stays_and_what_is_delayed_goes(api: Any) -> None:
    api.call('queue_create', queue_name='orders', metadata={'_default_message_delay': 1})
    post(api, 'claimed', 'free', delay=0)
    claimed = api.call('claim_create', queue_name='orders', limit=1).body
    assert [message['body'] for message in claimed['messages']] == ['claimed']
    post(api, 'delayed', delay=60)
    assert api.call('queue_purge', queue_name='orders').status == 204
    stats = api.call('queue_get_stats', queue_name='orders').body['messages']
    assert (stats['total'], stats['claimed']) == (1, 1)
    api.call('claim_delete', queue_name='orders', claim_id=claimed['claim_id'])
    assert bodies(api) == ['claimed']


def test_what_was_claimed_once_goes(api: Any) -> None:
    post(api, 1, 2)
    claim_id = api.call('claim_create', queue_name='orders').body['claim_id']
    assert api.call('claim_delete', queue_name='orders', claim_id=claim_id).status == 204
    assert api.call('queue_purge', queue_name='orders').status == 204
    assert api.call('queue_get_stats', queue_name='orders').body['messages']['total'] == 0


@pytest.mark.parametrize('queue_name', ['nowhere', 'orders'])
def test_nothing_is_easily_removed(api: Any, queue_name: str) -> None:
    api.call('queue_create', queue_name='orders')
    assert api.call('queue_purge', queue_name=queue_name).status == 204


def test_all_subscriptions_are_removed(api: Any) -> None:
    api.call('queue_create', queue_name='orders')
    for number in range(25):
        subscriber = f'http://127.0.0.1:1/{number}'
        created = api.call('subscription_create', queue_name='orders', subscriber=subscriber)
        assert created.status == 201
    post(api, 1)
    purged = api.call('queue_purge', queue_name='orders', resource_types=['subscriptions'])
    assert purged.status == 204
    assert api.call('subscription_list', queue_name='orders').body['subscriptions'] == []
    assert bodies(api) == [1]
