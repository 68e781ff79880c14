"""Redrives, over every transport and on every store that has them."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import RestCaller, new_identity
from tests.extensions.conftest import Extended
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.receivers import Receivers
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from tests.stores import CONFIGURATIONS

WORK = {'queue_name': 'work'}
DEAD = {'queue_name': 'dead'}


@pytest.fixture(scope='module')
def receivers() -> Iterator[Receivers]:
    with Receivers() as running:
        yield running


def post(api: Extended, queue: str, *bodies: Any, **more: Any) -> None:
    messages = [{'body': body, 'ttl': 600, **more} for body in bodies]
    answer = api.call('message_post', queue_name=queue, messages=messages)
    assert answer.status == 201, answer


def listed(api: Extended, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        page = api.call('message_list', queue_name=queue, echo=True, limit=20, **marker).body
        if not page['messages']:
            return found
        found += page['messages']
        link = page.get('links', [{'href': f'?marker={page.get("marker")}'}])[0]['href']
        marker = {'marker': link.partition('marker=')[2].partition('&')[0]}


def bodies(api: Extended, queue: str) -> list[Any]:
    return [message['body'] for message in listed(api, queue)]


def bury(
    api: Extended, *messages: Any, queue: str = 'work', is_created: bool = True, **more: Any
) -> None:
    """Have messages of a queue in its dead letter queue, `dead`, which keeps them for long.

    is_created: whether that queue is created; otherwise only its messages are there.
    """
    if is_created:
        api.call('queue_create', **DEAD)
    metadata = {
        '_dead_letter_queue': 'dead',
        '_max_claim_count': 1,
        '_dead_letter_queue_messages_ttl': 1000,
    }
    api.call('queue_create', queue_name=queue, metadata=metadata)
    for first in range(0, len(messages), 10):
        some = messages[first : first + 10]
        post(api, queue, *some, **more)
        claimed = api.call('claim_create', queue_name=queue, ttl=300, grace=60, limit=20).body
        entries = [
            {'message_id': one['id'], 'claim_id': claimed['claim_id'], 'reason': 'bad'}
            for one in claimed['messages']
        ]
        answer = api.call('message_reject_many', queue_name=queue, entries=entries)
        assert [one['status'] for one in answer.body['outcomes']] == [204] * len(some)


def redrive(api: Extended, queue: str = 'dead', **more: Any) -> str:
    answer = api.call('redrive_create', queue_name=queue, **more)
    assert answer.status == 201, answer
    redrive_id: str = answer.body['redrive_id']
    return redrive_id


def wait_until_over(api: Extended, redrive_id: str, queue: str = 'dead') -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        answer = api.call('redrive_get', queue_name=queue, redrive_id=redrive_id)
        assert answer.status == 200, answer
        if answer.body['state'] != 'running':
            found: dict[str, Any] = answer.body
            return found
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def test_dead_letters_come_back_to_where_they_are_from(extended: Extended) -> None:
    bury(extended, 1, 2, attributes={'a': 'b'})
    bury(extended, 'long' * 5000, queue='other')
    post(extended, 'dead', 'says nothing')
    post(extended, 'work', 0)
    over = wait_until_over(extended, redrive(extended))
    assert over['started'] <= over['ended']
    told = {name: over[name] for name in ('state', 'reason', 'moved', 'left', 'target', 'limit')}
    assert told == {
        'state': 'finished',
        'reason': None,
        'moved': 3,
        'left': 1,
        'target': None,
        'limit': None,
    }
    assert bodies(extended, 'dead') == ['says nothing']
    assert bodies(extended, 'other') == ['long' * 5000]
    found = listed(extended, 'work')
    assert [message['body'] for message in found] == [0, 1, 2]
    for message in found[1:]:
        assert message['attributes'] == {'a': 'b'}
        assert message['ttl'] == 600
        assert message['age'] < 60
        assert 'dead_letter' not in message
    claimed = extended.call('claim_create', **WORK, ttl=60, grace=60).body['messages']
    assert [message['claim_count'] for message in claimed] == [0, 0, 0]


def test_dead_letters_go_to_a_target_up_to_a_limit(extended: Extended) -> None:
    bury(extended, *range(25), is_created=False)
    assert extended.call('queue_get_stats', **DEAD).body['messages']['total'] == 25
    over = wait_until_over(extended, redrive(extended, target='new', limit=22))
    assert (over['state'], over['moved'], over['limit']) == ('finished', 22, 22)
    assert bodies(extended, 'new') == [*range(22)]
    assert bodies(extended, 'dead') == [22, 23, 24]


def test_what_is_claimed_or_comes_later_stays(extended: Extended) -> None:
    bury(extended, 1, 2)
    held = extended.call('claim_create', **DEAD, ttl=300, grace=60, limit=1).body
    over = wait_until_over(extended, redrive(extended))
    assert (over['moved'], over['left']) == (1, 0)
    assert bodies(extended, 'work') == [2]
    extended.call('claim_delete', **DEAD, claim_id=held['claim_id'])
    assert bodies(extended, 'dead') == [1]


def test_a_slow_redrive_is_cancelled(extended: Extended) -> None:
    bury(extended, *range(5))
    redrive_id = redrive(extended, rate=0.01)
    named = {**DEAD, 'redrive_id': redrive_id}
    deadline = time.monotonic() + 60
    while not extended.call('redrive_get', **named).body['moved']:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running = extended.call('redrive_get', **named).body
    assert (running['state'], running['rate'], running['ended']) == ('running', 0.01, None)
    for _ in range(2):
        assert extended.call('redrive_delete', **named).status == 204
    over = extended.call('redrive_get', **named).body
    assert (over['state'], over['moved']) == ('cancelled', 1)
    assert bodies(extended, 'work') == [0]
    assert bodies(extended, 'dead') == [1, 2, 3, 4]


def test_groups_come_back_in_their_order(extended: Extended) -> None:
    extended.call('queue_create', queue_name='grouped', metadata={'_ordered_groups': True})
    bury(extended, *range(4), group='a')
    wait_until_over(extended, redrive(extended, target='grouped'))
    claimed = extended.call('claim_create', queue_name='grouped', ttl=60, grace=60, limit=3).body
    assert [message['body'] for message in claimed['messages']] == [0, 1, 2]
    assert [message['group'] for message in claimed['messages']] == ['a'] * 3
    more = extended.call('claim_create', queue_name='grouped', ttl=60, grace=60)
    assert more.status == 204


def test_redrives_are_listed_by_pages(extended: Extended) -> None:
    bury(extended, 1)
    ids = [redrive(extended) for _ in range(3)]
    for redrive_id in ids:
        wait_until_over(extended, redrive_id)
    page = extended.call('redrive_list', **DEAD, limit=2).body
    assert [one['id'] for one in page['redrives']] == ids[:2]
    rest = extended.call('redrive_list', **DEAD, marker=ids[1]).body
    assert [one['id'] for one in rest['redrives']] == ids[2:]
    assert sum(one['moved'] for one in [*page['redrives'], *rest['redrives']]) == 1
    assert extended.call('redrive_list', **WORK).body['redrives'] == []


def test_ten_of_a_queue_run_at_a_time(extended: Extended) -> None:
    bury(extended, *range(20))
    ids = [redrive(extended, rate=0.01, limit=2) for _ in range(10)]
    answer = extended.call('redrive_create', **DEAD)
    assert answer.status == 429
    assert 'max_redrives_per_queue' in str(answer.body)
    assert extended.call('redrive_delete', **DEAD, redrive_id=ids[0]).status == 204
    redrive(extended)
    extended.call('queue_delete', **DEAD)
    over = [wait_until_over(extended, redrive_id) for redrive_id in ids]
    assert [one['state'] for one in over] == ['cancelled', *['stopped'] * 9]
    assert over[1]['reason'] == 'The queue was deleted.'


def test_what_cannot_be_done_is_refused(extended: Extended) -> None:
    extended.call('queue_create', **DEAD)
    refused: list[tuple[dict[str, Any], str]] = [
        ({'target': 'dead'}, 'the queue itself'),
        ({'target': 'no such queue!'}, '$.target'),
        ({'target': 5}, '$.target'),
        ({'limit': 0}, '$.limit'),
        ({'rate': 0}, '$.rate'),
        ({'rate': 1e9}, '$.rate'),
    ]
    for asked, told in refused:
        answer = extended.call('redrive_create', **DEAD, **asked)
        assert answer.status == 400, (asked, answer)
        assert told in str(answer.body)


def test_what_is_not_there_is_not_found(extended: Extended) -> None:
    assert extended.call('redrive_create', queue_name='nowhere').status == 404
    extended.call('queue_create', **DEAD)
    for action in ('redrive_get', 'redrive_delete'):
        for redrive_id in ('0' * 16, 'f' * 16, 'none'):
            assert extended.call(action, **DEAD, redrive_id=redrive_id).status == 404


def test_whoever_waits_and_webhooks_are_told(extended: Extended, receivers: Receivers) -> None:
    bury(extended, {'sku': 42}, attributes={'a': 'b'})
    path = f'prompt/{uuid.uuid4().hex}'
    subscriber = receivers.url(path)
    subscribed = extended.call('subscription_create', **WORK, subscriber=subscriber, ttl=600)
    assert subscribed.status == 201, subscribed
    redrive(extended)
    claimed = extended.call('claim_create', **WORK, ttl=60, grace=60, wait=20)
    assert [message['body'] for message in claimed.body['messages']] == [{'sku': 42}]
    [told] = receivers.wait_for(1, path, within=20)
    assert told.document['body'] == {'sku': 42}


def test_a_store_that_cannot_says_so(incapable: Any) -> None:
    caller = incapable()
    caller.call('queue_create', **DEAD)
    for action, more in (
        ('redrive_create', {}),
        ('redrive_list', {}),
        ('redrive_get', {'redrive_id': '1'}),
        ('redrive_delete', {'redrive_id': '1'}),
    ):
        answer = caller.call(action, **DEAD, **more)
        assert answer.status == 400, (action, answer)
        assert 'cannot move dead letters back' in str(answer.body)


@pytest.mark.parametrize('store', ['embedded', 'unshared', 'postgresql'])
def test_a_redrive_goes_on_after_a_crash(
    store: str, postgres: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    with contextlib.ExitStack() as stack:
        config = ''
        if store == 'postgresql':
            name = f'zaqar_{uuid.uuid4().hex}'
            config = ON_POSTGRESQL.format(uri=postgres.uri, schema=name)
        if store == 'unshared':
            directory = tmp_path / 'redis'
            directory.mkdir()
            redis = stack.enter_context(RedisProcess(directory))
            config = CONFIGURATIONS[store].format(redis=redis.uri, directory=tmp_path)
        server = stack.enter_context(ServerProcess(tmp_path / 'server', config=config))
        identity = new_identity()
        api = Extended(RestCaller(server.url, identity=identity))
        bury(api, *range(150))
        # Each second, 50 messages are moved in one step.
        redrive_id = redrive(api, rate=50)
        moved = 0
        deadline = time.monotonic() + 60
        while not moved:
            assert time.monotonic() < deadline
            moved = api.call('redrive_get', **DEAD, redrive_id=redrive_id).body['moved']
        server.kill()
        if store == 'postgresql':
            # Another of the fleet goes on.
            server = stack.enter_context(ServerProcess(tmp_path / 'other', config=config))
        else:
            server.start()
        api = Extended(RestCaller(server.url, identity=identity))
        over = wait_until_over(api, redrive_id)
        assert (over['state'], over['moved']) == ('finished', 150)
        assert bodies(api, 'work') == [*range(150)]
        assert bodies(api, 'dead') == []


def test_a_redrive_stops_at_the_quota_of_its_target(tmp_path: pathlib.Path) -> None:
    config = '[quota]\nzaqar_messages_per_queue = 3\n'
    with ServerProcess(tmp_path / 'server', config=config) as server:
        api = Extended(RestCaller(server.url, identity=new_identity()))
        bury(api, 1)
        post(api, 'work', 2, 3, 4)
        over = wait_until_over(api, redrive(api))
        assert (over['state'], over['moved']) == ('stopped', 0)
        assert 'zaqar_messages_per_queue' in over['reason']
        assert bodies(api, 'dead') == [1]


def test_a_redrive_whose_steps_fail_does_not_hold_up_others(tmp_path: pathlib.Path) -> None:
    """It is the first to be due, again and again."""
    with ServerProcess(tmp_path) as server:
        api = Extended(RestCaller(server.url, identity=new_identity()))
        post(api, 'broken', 1)
        bury(api, 2)
        file = tmp_path / 'zaqar.sqlite'
        with contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
            database.execute(
                """CREATE TRIGGER breaking BEFORE UPDATE ON redrives WHEN old.queue = 'broken'
                BEGIN SELECT RAISE(ABORT, 'broken'); END"""
            )
        broken = redrive(api, 'broken', target='other')
        over = wait_until_over(api, redrive(api))
        assert (over['state'], over['moved']) == ('finished', 1)
        waiting = api.call('redrive_get', queue_name='broken', redrive_id=broken).body
        assert (waiting['state'], waiting['moved']) == ('running', 0)
        with contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
            database.execute('DROP TRIGGER breaking')
        assert wait_until_over(api, broken, 'broken')['moved'] == 1
