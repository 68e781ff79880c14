"""The wall clock is set while clients are connected: what they have goes on, or they are told."""

from __future__ import annotations

import datetime
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import RestCaller
from tests.client.waiting import wait_until
from tests.faults.client import COMPACT, DEFAULT, Dialect
from tests.functional.test_push import Hasty, Subscriber, post
from tests.stopwatch import Stopwatch

HOUR = 3600.0
NOTICED_SECONDS = 1.5


class Unsteady(Hasty):
    """A server whose wall clock can be set; subscriptions and claims may end after seconds."""

    CHANGES = (
        'import os, time; true_time = time.time; '
        'offset = lambda: open(os.environ.get("OFFSET", os.devnull)).read(); '
        f'time.time = lambda: true_time() + float(offset() or 0); {Hasty.CHANGES}'
    )

    def __init__(self, state_path: pathlib.Path, *options: str, **more: Any) -> None:
        state_path.mkdir(parents=True, exist_ok=True)
        self._offset = state_path / 'offset'
        self.step(0)
        super().__init__(state_path, *options, env={'OFFSET': str(self._offset)}, **more)

    def step(self, seconds: float) -> None:
        """Set the clock by so much from the true time."""
        new = self._offset.with_suffix('.new')
        new.write_text(str(seconds))
        os.replace(new, self._offset)


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Unsteady]:
    config = '[signed_url]\nsecret_key = secret\n'
    with Unsteady(tmp_path / 'state', config=config) as process:
        yield process


@pytest.fixture(params=[COMPACT, DEFAULT], ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
def subscriber(server: Unsteady, dialect: Dialect) -> Iterator[Subscriber]:
    with Subscriber(server.port, dialect) as client:
        yield client


@pytest.fixture
def rest(server: Unsteady, subscriber: Subscriber) -> RestCaller:
    return RestCaller(server.url, identity=subscriber.identity)


def status_of(rest: RestCaller, subscription_id: str) -> int:
    target = {'queue_name': 'orders', 'subscription_id': subscription_id}
    return int(rest.call('subscription_get', **target).status)


@pytest.mark.parametrize('hours', [2.0, -2.0])
def test_a_subscription_goes_on_when_the_clock_is_set(
    server: Unsteady, subscriber: Subscriber, rest: RestCaller, hours: float
) -> None:
    subscription_id = subscriber.subscribe()
    post(rest, 'before')
    assert subscriber.bodies(1) == ['before']
    server.step(hours * HOUR)
    post(rest, 'at once')
    assert subscriber.bodies(1) == ['at once']
    wait_until(lambda: status_of(rest, subscription_id) == 200, 60, 'it is in the store')
    for body in ('soon', 'later'):
        time.sleep(NOTICED_SECONDS)
        post(rest, body)
        assert subscriber.bodies(1) == [body]
    assert subscriber.has_nothing_more()
    # It is still known by the id that its client has.
    target = {'queue_name': 'orders', 'subscription_id': subscription_id}
    found = subscriber.call('subscription_get', **target)
    assert (found.status, found.body['id']) == (200, subscription_id)
    assert subscriber.call('subscription_delete', **target).status == 204
    post(rest, 'after')
    assert subscriber.has_nothing_more()
    assert status_of(rest, subscription_id) == 404


def test_nothing_is_left_of_a_subscription_that_was_made_again(
    server: Unsteady, rest: RestCaller, subscriber: Subscriber
) -> None:
    subscriber.subscribe()
    server.step(2 * HOUR)
    time.sleep(NOTICED_SECONDS)
    subscriber.reset()
    post(rest, 1)
    # Another connection's would be the next of its row's id.
    with Subscriber(server.port, COMPACT, identity=rest.identity) as other:
        wait_until(
            lambda: status_of(rest, f'{int(other.subscribe("other"), 16) - 1:016x}') == 404,
            60,
            'its row goes with the connection',
        )


def test_a_subscription_that_was_given_a_time_has_it(
    server: Unsteady, subscriber: Subscriber, rest: RestCaller
) -> None:
    began, watch = time.monotonic(), Stopwatch(server.pid)
    subscriber.subscribe(ttl=8)
    server.step(2 * HOUR)
    for body in ('at once', 'soon'):
        post(rest, body)
        assert subscriber.bodies(1) == [body]
        time.sleep(NOTICED_SECONDS)
    assert subscriber.end() == 'expired'
    assert time.monotonic() - began > 7
    assert watch.seconds() < 15


def test_a_pre_signed_url_ends_by_the_wall_clock(server: Unsteady, dialect: Dialect) -> None:
    rest = RestCaller(server.url)
    shared = {'paths': ['subscriptions'], 'methods': ['POST'], 'expires': in_an_hour()}
    signed = rest.call('queue_share', queue_name='orders', **shared).body
    with Subscriber(server.port, dialect, identity=rest.identity) as guest:
        headers = {
            **rest.identity.headers(),
            'URL-Signature': signed['signature'],
            'URL-Expires': signed['expires'],
            'URL-Methods': ','.join(signed['methods']),
            'URL-Paths': ','.join(signed['paths']),
        }
        asked = {'id': 0, 'action': 'subscription_create', 'body': {'queue_name': 'orders'}}
        guest.send(guest.frame({**asked, 'headers': headers}))
        assert guest.dialect.status(guest.answer()) == 201
        post(rest, 'before')
        assert guest.bodies(1) == ['before']
        server.step(2 * HOUR)
        assert guest.end() == 'signature_expired'


def in_an_hour() -> str:
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    return end.strftime('%Y-%m-%dT%H:%M:%S')


def test_a_consumer_keeps_its_messages_when_the_clock_is_set(server: Unsteady) -> None:
    with Subscriber(server.port, COMPACT) as worker:
        rest = RestCaller(server.url, identity=worker.identity)
        created = worker.call('queue_consume', queue_name='orders', ttl=60, grace=60)
        assert created.status == 201
        [message_id] = post(rest, 'work')
        assert worker.push()['message']['id'] == message_id
        for step in (45, 90, 135):
            server.step(step)
            time.sleep(NOTICED_SECONDS)
            assert rest.call('claim_create', queue_name='orders').status == 204
        settled = {'consumer_id': created.body['consumer_id'], 'message_ids': [message_id]}
        assert worker.call('message_ack', **settled).status == 204


def test_who_deletes_a_subscription_is_not_the_clock(
    server: Unsteady, subscriber: Subscriber, rest: RestCaller
) -> None:
    subscription_id = subscriber.subscribe()
    server.step(2 * HOUR)
    wait_until(lambda: status_of(rest, subscription_id) == 200, 60, 'it is in the store')
    time.sleep(NOTICED_SECONDS)
    purged = rest.call('queue_purge', queue_name='orders', resource_types=['subscriptions'])
    assert purged.status == 204
    post(rest, 'after')
    assert subscriber.end() == 'deleted'
    assert subscriber.has_nothing_more()
