"""Where a subscription begins, and that its client knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.callers import RestCaller
from tests.faults.client import COMPACT, DEFAULT, Dialect
from tests.functional.test_push import Subscriber, post
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess


@pytest.fixture(scope='module')
def redis_server(
    redis: RedisProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    config = ON_REDIS.format(redis=redis.patient_uri)
    with ServerProcess(tmp_path_factory.mktemp('redis'), config=config) as process:
        yield process


@pytest.fixture(params=['server', 'redis_server'])
def port(request: pytest.FixtureRequest) -> int:
    """Of a server on the embedded store, and of servers on Redis."""
    process: ServerProcess = request.getfixturevalue(request.param)
    return process.port


@pytest.fixture(params=[COMPACT, DEFAULT], ids=['compact', 'default'])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture
def subscriber(port: int, dialect: Dialect) -> Iterator[Subscriber]:
    with Subscriber(port, dialect) as client:
        yield client


@pytest.fixture
def rest(port: int, subscriber: Subscriber) -> RestCaller:
    return RestCaller(f'http://127.0.0.1:{port}', identity=subscriber.identity)


def began_at(subscriber: Subscriber, **more: str | None) -> str:
    """Subscribe; the marker that the answer says."""
    answer = subscriber.call('subscription_create', queue_name='orders', **more)
    assert answer.status == 201, answer.body
    marker: str = answer.body['marker']
    return marker


def test_without_a_marker_it_begins_after_what_is_there(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    ids = post(rest, 1, 2)
    # On Redis a marker is an id; the embedded store's has more.
    assert began_at(subscriber)[: len(ids[-1])] == ids[-1]
    post(rest, 3)
    assert subscriber.bodies(1) == [3]


def test_without_a_marker_it_begins_at_the_start_of_an_empty_queue(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    assert began_at(subscriber) == ''
    post(rest, 1)
    assert subscriber.bodies(1) == [1]


def test_an_empty_marker_is_the_start_of_the_queue(
    subscriber: Subscriber, rest: RestCaller
) -> None:
    post(rest, *range(50))
    assert began_at(subscriber, marker='') == ''
    assert subscriber.bodies(50) == list(range(50))
    post(rest, 50)
    assert subscriber.bodies(1) == [50]


def test_the_marker_that_was_told_resumes_before_the_first_push(
    port: int, dialect: Dialect, subscriber: Subscriber, rest: RestCaller
) -> None:
    post(rest, 1, 2)
    marker = began_at(subscriber)
    subscriber.reset()
    post(rest, 3, 4)
    with Subscriber(port, dialect, identity=subscriber.identity) as successor:
        assert began_at(successor, marker=marker) == marker
        assert successor.bodies(2) == [3, 4]


def test_a_marker_given_is_told(subscriber: Subscriber, rest: RestCaller) -> None:
    ids = post(rest, 1, 2)
    assert began_at(subscriber, marker=ids[0]) == ids[0]
    assert subscriber.bodies(1) == [2]
