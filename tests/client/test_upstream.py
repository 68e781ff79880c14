"""The client of a server that knows only upstream's envelope: upstream's own."""

from __future__ import annotations

import itertools
import pathlib
import uuid
from collections.abc import Iterator

import pytest

from tests.client.upstream_process import UpstreamProcess
from tests.redis_process import RedisProcess
from zaqar_gevent.client import Client, NotFound, Unsupported

BODIES = [{'n': number, 'text': f'é{number}'} for number in range(5)]


@pytest.fixture(scope='module')
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamProcess]:
    directory: pathlib.Path = tmp_path_factory.mktemp('upstream')
    with RedisProcess(directory) as redis, UpstreamProcess(directory, redis.patient_uri) as process:
        yield process


@pytest.fixture(params=['msgpack', 'json'])
def client(request: pytest.FixtureRequest, upstream: UpstreamProcess) -> Iterator[Client]:
    url = f'http://127.0.0.1:{upstream.port}'
    with Client(url, project=uuid.uuid4().hex, encoding=request.param) as client:
        yield client


def test_it_falls_to_the_envelope_that_the_server_has(client: Client) -> None:
    client.queue('q').create()
    assert client.state == 'websocket'
    assert client.protocol != 'zaqar.v2'


def test_messages_are_posted_listed_claimed_and_deleted(client: Client) -> None:
    queue = client.queue('orders')
    assert queue.create({'team': 'red'})
    assert queue.get_metadata()['team'] == 'red'
    ids = queue.post(BODIES, ttl=300)
    assert [message.id for message in queue.messages()] == ids
    assert [message.body for message in queue.messages()] == BODIES
    claim = queue.claim(limit=3, ttl=300, grace=60)
    claimed = list(claim.messages)
    assert [message.body for message in claimed] == BODIES[:3]
    for message in claimed:
        message.delete()
    assert queue.stats()['messages']['total'] == 2
    queue.claim(limit=3, ttl=300, grace=60).release()
    assert queue.stats()['messages']['free'] == 2
    with pytest.raises(NotFound):
        queue.get(ids[0])
    assert queue.get(ids[4]).body == BODIES[4]
    queue.delete()


def test_what_a_server_would_ignore_is_not_given_to_it(client: Client) -> None:
    queue = client.queue('orders')
    with pytest.raises(Unsupported, match='post_id'):
        queue.post('once', post_id='1')
    with pytest.raises(Unsupported, match='attributes'):
        queue.post('once', attributes={'type': 'order'})
    with pytest.raises(Unsupported, match='deliver_at'):
        queue.post('once', deliver_at=1.0)
    queue.create()
    assert queue.stats()['messages']['total'] == 0


def test_a_subscription_yields_what_was_there_and_what_is_posted(client: Client) -> None:
    queue = client.queue('orders')
    queue.create()
    queue.post(BODIES[:2], ttl=300)
    with queue.subscribe(marker='') as subscription:
        got = list(itertools.islice(subscription, 2))
        for body in BODIES[2:]:
            queue.post(body, ttl=300)
        got += itertools.islice(subscription, 3)
    assert [message.body for message in got] == BODIES


def test_a_subscription_from_now_on_yields_what_is_posted(client: Client) -> None:
    queue = client.queue('orders')
    queue.create()
    queue.post(BODIES[:2], ttl=300)
    with queue.subscribe() as subscription:
        for body in BODIES[2:]:
            queue.post(body, ttl=300)
        got = list(itertools.islice(subscription, 3))
    assert [message.body for message in got] == BODIES[2:]


def test_a_consumer_works_with_claims(client: Client) -> None:
    queue = client.queue('orders')
    queue.create()
    queue.post(BODIES, ttl=300)
    done = []
    with queue.consume(credit=2) as consumer:
        for message in itertools.islice(consumer, len(BODIES)):
            done.append(message.body)
            message.ack()
    assert sorted(body['n'] for body in done) == list(range(len(BODIES)))
    assert queue.stats()['messages']['total'] == 0
