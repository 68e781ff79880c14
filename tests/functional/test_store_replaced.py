"""The store begins anew, or from a backup: no follower misses a message without a word."""

from __future__ import annotations

import pathlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.callers import TRANSPORTS, RestCaller, connect
from tests.client.waiting import wait_until
from tests.faults.client import COMPACT, DIALECTS, Dialect
from tests.functional.test_push import Subscriber, post
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client
from zaqar_gevent.client.fallback import Transport

STORE = 'zaqar.sqlite'
SECONDS = 60.0
RESTORED = {'anew': [], 'backup': [1, 2]}


class Replaceable(ServerProcess):
    """A server on a port of its own, whose store can be replaced between two runs."""

    def __init__(self, state_path: pathlib.Path) -> None:
        super().__init__(state_path)
        self._directory = state_path
        self._backup = state_path.parent / 'backup.sqlite'

    def back_up(self) -> None:
        source = sqlite3.connect(self._directory / STORE)
        target = sqlite3.connect(self._backup)
        with closing(source), closing(target):
            source.backup(target)

    def restart(self, how: str) -> None:
        """Stop, and start with a new store, or with what was in it when it was backed up."""
        self.stop()
        for file in self._directory.glob(f'{STORE}*'):
            file.unlink()
        if how == 'backup':
            shutil.copy(self._backup, self._directory / STORE)
        self._command[self._command.index('--port') + 1] = str(self.port)
        self.start()


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Replaceable]:
    with Replaceable(tmp_path / 'state') as process:
        yield process


@pytest.fixture(params=RESTORED)
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_unknown(answer: Any, marker: str) -> None:
    assert answer.status == 400
    assert answer.body['code'] == 'unknown_marker'
    assert marker in str(answer.body)


def prepare(server: Replaceable, caller: Any) -> list[str]:
    """Post 1 and 2, which are backed up, and then 3 to 5; the markers of these three."""
    listed = {'queue_name': 'orders', 'echo': True}
    post(caller, 1, 2)
    server.back_up()
    post(caller, 3, 4, 5)
    return [
        caller.call('message_list', limit=number, **listed).body['marker'] for number in (3, 4, 5)
    ]


@pytest.mark.parametrize('since', [0, 3, 10])
def test_a_list_refuses_the_markers_of_before(server: Replaceable, how: str, since: int) -> None:
    identity = RestCaller(server.url).identity
    markers = prepare(server, RestCaller(server.url, identity=identity))
    server.restart(how)
    for transport in TRANSPORTS:
        caller = connect(transport, server.url, server.websocket_url, identity)
        if since and transport == 'rest':
            post(caller, *range(10, 10 + since))
        for marker in markers:
            for wait in ({}, {'wait': 0}):
                listed = {'queue_name': 'orders', 'echo': True, **wait}
                assert_unknown(caller.call('message_list', marker=marker, **listed), marker)
        page = caller.call('message_list', queue_name='orders', echo=True, limit=20).body[
            'messages'
        ]
        assert [one['body'] for one in page] == [*RESTORED[how], *range(10, 10 + since)]
        caller.close()


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
def test_a_subscription_refuses_the_markers_of_before(
    server: Replaceable, how: str, dialect: Dialect
) -> None:
    identity = RestCaller(server.url).identity
    rest = RestCaller(server.url, identity=identity)
    markers = prepare(server, rest)
    server.restart(how)
    post(rest, *range(10, 20))
    with Subscriber(server.port, dialect, identity=identity) as subscriber:
        for marker in markers:
            asked = {'queue_name': 'orders', 'marker': marker}
            assert_unknown(subscriber.call('subscription_create', **asked), marker)
        subscription_id = subscriber.subscribe(marker='')
        everything = [*RESTORED[how], *range(10, 20)]
        assert subscriber.bodies(len(everything)) == everything
        resumed = subscriber.call(
            'subscription_resume', subscription_id=subscription_id, marker=markers[0]
        )
        assert_unknown(resumed, markers[0])


def test_a_marker_of_before_the_backup_goes_on(server: Replaceable) -> None:
    rest = RestCaller(server.url)
    post(rest, 1, 2)
    listed = {'queue_name': 'orders', 'echo': True}
    marker = rest.call('message_list', limit=1, **listed).body['marker']
    server.back_up()
    post(rest, 3)
    server.restart('backup')
    post(rest, 4)
    with Subscriber(server.port, COMPACT, identity=rest.identity) as subscriber:
        subscriber.subscribe(marker=marker)
        assert subscriber.bodies(2) == [2, 4]


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
@pytest.mark.parametrize('since', [1, 10])
def test_the_python_client_begins_again_and_says_so(
    server: Replaceable,
    how: str,
    transport: Transport,
    since: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    with Client(server.url, project='demo', transport=transport, timeout=SECONDS) as client:
        orders = client.queue('orders')
        orders.post([1, 2])
        server.back_up()
        with orders.subscribe(marker='', on_restart=lambda: told.append('told')) as subscription:
            orders.post([3, 4, 5])
            assert bodies(subscription, 5) == [1, 2, 3, 4, 5]
            lost = subscription.marker
            server.restart(how)
            for number in range(10, 10 + since):
                orders.post(number)
            expected = [*RESTORED[how], *range(10, 10 + since)]
            assert bodies(subscription, len(expected)) == expected
            orders.post('on')
            assert bodies(subscription, 1) == ['on']
            assert (subscription.restarts, told) == (1, ['told'])
            assert 'begins again with the oldest message' in caplog.text
        # One that is made with the lost marker does the same.
        with orders.subscribe(marker=lost) as late:
            assert bodies(late, len(expected) + 1) == [*expected, 'on']
            assert late.restarts == 1


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_the_python_client_that_waits_for_what_is_new_notices(
    server: Replaceable, how: str, transport: Transport
) -> None:
    with Client(server.url, project='demo', transport=transport, timeout=SECONDS) as client:
        orders = client.queue('orders')
        orders.post([1, 2])
        server.back_up()
        orders.post([3, 4, 5])
        with orders.subscribe() as subscription:
            assert subscription.receive(timeout=1) is None
            server.restart(how)
            orders.post(list(range(10, 20)))
            expected = [*RESTORED[how], *range(10, 20)]
            assert bodies(subscription, len(expected)) == expected


def bodies(subscription: Any, count: int) -> list[Any]:
    found = [subscription.receive(timeout=SECONDS) for _ in range(count)]
    return [message and message.body for message in found]


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
def test_a_follower_of_a_store_that_changes_under_the_server_is_told(
    server: Replaceable, tmp_path: pathlib.Path, dialect: Dialect
) -> None:
    with Subscriber(server.port, dialect) as subscriber:
        rest = RestCaller(server.url, identity=subscriber.identity)
        subscriber.subscribe()
        post(rest, 1)
        assert subscriber.bodies(1) == [1]
        with closing(sqlite3.connect(tmp_path / 'state' / STORE, isolation_level=None)) as other:
            other.execute("UPDATE epochs SET name = 'ffffffff'")
        post(rest, 2)
        assert subscriber.end() == 'unknown_marker'
        subscriber.subscribe(marker='')
        assert subscriber.bodies(2) == [1, 2]


def test_a_list_of_subscriptions_refuses_a_marker_that_none_has_had(server: Replaceable) -> None:
    rest = RestCaller(server.url)
    listed = {'queue_name': 'orders'}
    for number in range(3):
        subscriber = f'http://127.0.0.1:1/{number}'
        created = rest.call('subscription_create', subscriber=subscriber, **listed)
        assert created.status == 201
    marker = rest.call('subscription_list', **listed).body['marker']
    assert rest.call('subscription_list', marker=marker, **listed).status == 200
    server.restart('anew')
    assert_unknown(rest.call('subscription_list', marker=marker, **listed), marker)


def test_an_empty_page_says_where_it_stands_to_whom_waits(server: Replaceable) -> None:
    for transport in TRANSPORTS:
        caller = connect(transport, server.url, server.websocket_url)
        [message_id] = post(caller, 1)
        listed = {'queue_name': 'orders', 'echo': True, 'marker': message_id}
        assert 'marker' not in caller.call('message_list', **listed).body
        marker = caller.call('message_list', wait=0, **listed).body['marker']
        assert marker.startswith(f'{message_id}-')
        listed['marker'] = marker
        assert caller.call('message_list', wait=0, **listed).body['marker'] == marker
        caller.close()


def test_waiting_ends_at_a_store_made_anew(server: Replaceable, how: str) -> None:
    """A poll that waits at the restart fails with its connection; the next one is refused."""
    rest = RestCaller(server.url)
    markers = prepare(server, rest)
    server.restart(how)
    asked = {'queue_name': 'orders', 'echo': True, 'marker': markers[-1], 'wait': 20}
    waited = wait_until(
        lambda: rest.call('message_list', **asked).status == 400, 60, 'the marker is refused'
    )
    assert waited < 10
