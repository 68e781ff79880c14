"""`zaqar-gevent store copy`: what one store holds is found in another, in its order, once."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from zaqar.storage import errors, pipeline

from tests.fork_server import LOCAL, run_forked
from tests.postgres_process import PostgresProcess
from tests.redis_process import RedisProcess
from tests.storage.conftest import CLIENT, PROJECT, Store, load, load_postgresql, open_drivers
from zaqar_gevent.copying import copier, stores
from zaqar_gevent.retry_delays import RetryDelay
from zaqar_gevent.settlements import Settle, Settlement
from zaqar_gevent.storage import drivers
from zaqar_gevent.storage.records import MessageRecord, QueueRecord

TARGETS = ('sqlite', 'native', 'postgresql')
COUNT = 450
WEBHOOK = 'http://127.0.0.1:9/hook'


class Place(Store):
    """A store with the URI by which it is copied."""

    uri: str


@contextlib.contextmanager
def opened_at(
    name: str,
    directory: pathlib.Path,
    request: pytest.FixtureRequest,
    redis: RedisProcess | None = None,
) -> Iterator[Place]:
    """An empty store, on the given Redis or one of its own."""
    with contextlib.ExitStack() as stack:
        if name == 'postgresql':
            postgres: PostgresProcess = request.getfixturevalue('postgres')
            conf = load_postgresql(postgres.uri, directory)
        else:
            if name != 'sqlite' and redis is None:
                redis = stack.enter_context(RedisProcess(directory))
            conf = load(name, redis, directory)
        driver, control = open_drivers(name, conf)
        data = pipeline.DataDriver(conf, driver, control)
        drivers.protect(data)
        drivers.protect_control(control)
        place = Place(name, data, control, redis)
        options = conf[f'drivers:message_store:{conf.drivers.message_store}']
        place.uri = options.uri
        if name == 'postgresql':
            place.uri += f'?schema={options.schema}'
        yield place
        data.close()
        control.close()


@pytest.fixture(scope='module', params=('sqlite', 'native', 'postgresql', 'upstream'))
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A store with queues, messages of every kind, claims, subscriptions and pools."""
    with opened_at(request.param, tmp_path_factory.mktemp('source'), request) as place:
        fill(place)
        yield place


@pytest.fixture(params=TARGETS)
def target(
    request: pytest.FixtureRequest, redis: RedisProcess, tmp_path: pathlib.Path
) -> Iterator[Place]:
    redis.client.flushall()
    with opened_at(request.param, tmp_path, request, redis) as place:
        yield place


def fill(place: Place) -> None:
    queues, messages = place.queues, place.messages
    queues.create('orders', metadata={'_default_message_ttl': 900, 'owner': 'Ä'})
    queues.create('empty')
    queues.create('orders', metadata={'other': True}, project='bank')
    for start in range(0, COUNT, 50):
        bodies = [{'number': number, 'text': 'ß' * 40} for number in range(start, start + 50)]
        place.post('orders', *bodies)
    messages.post('orders', [{'ttl': 300, 'body': 'safe'}], CLIENT, project='bank')
    place.held, found = place.claim('orders', limit=5, ttl=120)
    assert len(found) == 5
    place.post('orders', 'later', delay=40)
    place.post('orders', 'last')
    place.subscriptions.create('orders', WEBHOOK, 3600, {'from': 'a test'})
    if place.name != 'upstream':
        place.topics.create('news', metadata={'kind': 'topic'})
        place.post('news', 'extra')
        place.control.pools_controller.create('near', 10, 'redis://near', options={'a': 1})
        place.control.flavors_controller.create('fast', project=PROJECT, capabilities={'FIFO': 1})
        place.control.catalogue_controller.insert(PROJECT, 'orders', 'near')


def copy(source: Place, target: Place) -> copier.Counts:
    reader, writer = stores.open_source(source.uri), stores.open_target(target.uri)
    try:
        return copier.copy(reader, writer)
    finally:
        reader.close()
        writer.close()


def read(place: Place, queue: str, **more: Any) -> list[dict[str, Any]]:
    """All messages of a queue that are visible, page by page."""
    found: list[dict[str, Any]] = []
    marker = None
    while True:
        page, ends = place.messages.list(
            queue, marker=marker, limit=100, echo=True, include_claimed=True, **more
        )
        some = list(page)
        if not some:
            return found
        found += some
        marker = ends if isinstance(ends, str) else next(iter(ends))


def test_what_a_store_holds_is_found_in_another(source: Place, target: Place) -> None:
    counts = copy(source, target)

    assert counts.queues == 3
    assert counts.messages == counts.added == COUNT + 3 + (source.name != 'upstream')
    assert (counts.claimed, counts.delayed, counts.subscriptions) == (5, 1, 1)
    assert target.queues.get_metadata('orders') == source.queues.get_metadata('orders')
    assert target.queues.get_metadata('orders', project='bank') == {'other': True}
    kept = read(target, 'orders')
    assert [one['body'] for one in kept] == [one['body'] for one in read(source, 'orders')]
    # PostgreSQL shows the id of a claim without hyphens.
    holders = [one['claim_id'] and uuid.UUID(one['claim_id']) for one in kept[:6]]
    assert holders == [uuid.UUID(source.held)] * 5 + [None]
    assert kept[0]['claim_count'] == read(source, 'orders')[0]['claim_count']
    assert all(one['ttl'] == 300 and one['age'] < 100 for one in kept)
    assert target.counts('orders') == (5, COUNT + 2 - 5)
    assert [one['body'] for one in read(target, 'orders', project='bank')] == ['safe']


def test_claims_go_on_in_the_other_store(source: Place, target: Place) -> None:
    copy(source, target)
    claim, held = target.claims.get('orders', source.held)
    held = list(held)

    assert claim['ttl'] == 120
    assert [one['body']['number'] for one in held] == [0, 1, 2, 3, 4]
    target.claims.update('orders', source.held, {'ttl': 200, 'grace': 60})
    target.messages.delete('orders', held[0]['id'], claim=source.held)
    target.claims.delete('orders', source.held)
    _, again = target.claim('orders', limit=5)
    assert [one['body']['number'] for one in again] == [1, 2, 3, 4, 5]
    with pytest.raises(errors.ClaimDoesNotExist):
        target.claims.get('orders', source.held)


def test_delayed_messages_come_when_they_are_due(source: Place, target: Place) -> None:
    copy(source, target)
    assert target.list('orders', limit=1000)[-1] == 'last'
    with target.later(60):
        assert target.list('orders', limit=1000)[-2:] == ['last', 'later']


def test_subscriptions_pools_and_flavors_are_kept(source: Place, target: Place) -> None:
    counts = copy(source, target)
    [found] = next(iter(target.subscriptions.list('orders')))
    assert (found['subscriber'], found['ttl']) == (WEBHOOK, 3600)
    assert found['options'] == {'from': 'a test'}
    assert (counts.pools, counts.flavors, counts.places) == (
        (0, 0, 0) if source.name == 'upstream' else (1, 1, 1)
    )
    if source.name != 'upstream':
        pool = target.control.pools_controller.get('near', detailed=True)
        assert (pool['uri'], pool['weight'], pool['options']) == ('redis://near', 10, {'a': 1})
        assert target.control.flavors_controller.exists('fast', project=PROJECT)
        assert target.control.catalogue_controller.get(PROJECT, 'orders')['pool'] == 'near'
        assert target.topics.get_metadata('news') == {'kind': 'topic'}
        assert target.list('news') == ['extra']


def test_a_copy_that_was_interrupted_is_continued(source: Place, target: Place) -> None:
    writer = stores.open_target(target.uri)
    reader = stores.open_source(source.uri)
    interrupted = _Interrupted(writer)
    with pytest.raises(KeyboardInterrupt):
        copier.copy(reader, interrupted)
    reader.close()
    writer.close()
    assert len(read(target, 'orders')) == copier.BATCH

    counts = copy(source, target)
    assert counts.added == counts.messages - interrupted.written
    assert [one['body'] for one in read(target, 'orders')] == [
        one['body'] for one in read(source, 'orders')
    ]
    assert copy(source, target).added == 0
    assert target.counts('orders') == (5, COUNT + 2 - 5)


class _Interrupted:
    """A store that is written to until the second batch of a queue."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._batches = 0
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write_messages(
        self, queue: QueueRecord, messages: Sequence[MessageRecord], *, keep_ids: bool
    ) -> int:
        self._batches += queue.name == 'orders' and queue.project == PROJECT
        if self._batches > 1:
            raise KeyboardInterrupt
        written: int = self._store.write_messages(queue, messages, keep_ids=keep_ids)
        self.written += written
        return written


def test_messages_of_redis_keep_their_ids_on_redis(source: Place, target: Place) -> None:
    copy(source, target)
    before = [one['id'] for one in read(source, 'orders')]
    after = [one['id'] for one in read(target, 'orders')]
    are_on_redis = {source.name, target.name} <= {'native', 'upstream'}
    assert (before == after) is are_on_redis


@pytest.mark.parametrize('kind', ['sqlite', 'unshared', 'postgresql'])
def test_what_upstreams_messages_do_not_have_is_kept(
    target: Place, kind: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    directory = tmp_path / 'source'
    directory.mkdir()
    with opened_at(kind, directory, request) as source:
        for queue in ('orders', 'failed'):
            metadata = {'_retry_delay': {'initial': 100}} if queue == 'orders' else {}
            metadata.update(_dead_letter_queue='failed', _max_claim_count=5)
            source.queues.create(queue, metadata=metadata if queue == 'orders' else {})
        names = ('held', 'waits', 'extended', 'twice', 'rejected', 'free')
        ids = {}
        for name in names:
            [ids[name]] = source.post('orders', name, attributes={'of': name}, group=f'g {name}')
        source.post('orders', 'scheduled', delay=1000, scheduled=True, attributes={'of': 'ü'})
        lease = {'ttl': 60, 'grace': 60, 'retry': RetryDelay(100)}
        claim, found = source.claims.create('orders', lease, limit=5)
        assert len(list(found)) == 5

        def settle(settlement: Settle, name: str, **more: Any) -> None:
            one = Settlement(settlement, ids[name], claim, **more)
            assert source.claims.settle('orders', [one]) == [None]

        settle(Settle.RELEASE, 'waits')
        settle(Settle.EXTEND, 'extended', ttl=500, grace=60)
        settle(Settle.RELEASE, 'twice', delay=0)
        settle(Settle.REJECT, 'rejected', reason='broken')
        again, found = source.claims.create('orders', lease, limit=1)
        assert [one['body'] for one in found] == ['twice']
        before = {one['body']: one for one in _read_all(source, 'orders')}
        [dead] = read(source, 'failed')
        counts = copy(source, target)
        assert (counts.messages, counts.claimed, counts.delayed) == (7, 3, 1)

    after = {one['body']: one for one in _read_all(target, 'orders')}
    assert [*after] == [*before] == ['held', 'waits', 'extended', 'twice', 'free', 'scheduled']
    for name, one in after.items():
        for member in ('attributes', 'group', 'claim_count', 'ttl'):
            assert one.get(member) == before[name].get(member), (name, member)
    holders = {name: one['claim_id'] and uuid.UUID(one['claim_id']) for name, one in after.items()}
    assert holders == {
        'held': uuid.UUID(claim),
        'waits': None,
        'extended': uuid.UUID(claim),
        'twice': uuid.UUID(again),
        'free': None,
        'scheduled': None,
    }
    [moved] = read(target, 'failed')
    for member in ('body', 'attributes', 'group', 'dead_letter'):
        assert moved[member] == dead[member]
    with target.later(110):
        # Of the first claim one is held for longer, and the other one waits for its retry now.
        assert [one['body'] for one in target.claim('orders', ttl=3000)[1]] == ['waits', 'free']
    with target.later(200):
        assert {one['body'] for one in target.claim('orders', ttl=3000)[1]} <= {'held', 'twice'}
    with target.later(900):
        assert 'scheduled' not in target.list('orders', include_claimed=True)
    with target.later(1010):
        assert 'scheduled' in target.list('orders', include_claimed=True)


def _read_all(place: Place, queue: str) -> list[dict[str, Any]]:
    """All messages of a queue, those that wait or are not visible yet included."""
    page = place.messages.list(queue, echo=True, include_claimed=True, include_delayed=True)
    return list(next(page))


def test_messages_of_a_copy_have_markers(source: Place, target: Place) -> None:
    copy(source, target)
    page, marker = target.messages.list('orders', limit=10, echo=True, include_claimed=True)
    first = list(page)
    rest, _ = target.messages.list('orders', marker=marker, echo=True, limit=5)
    assert [one['body']['number'] for one in (*first, *rest)] == [*range(15)]


@pytest.mark.parametrize('kind', ['sqlite', 'postgresql'])
def test_a_retry_that_waits_keeps_its_place(
    target: Place, kind: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    directory = tmp_path / 'source'
    directory.mkdir()
    with opened_at(kind, directory, request) as source:
        source.queues.create('orders', metadata={'_retry_delay': {'initial': 100}})
        source.post('orders', 'first', 'second', 'third')
        lease = {'ttl': 60, 'grace': 60, 'retry': RetryDelay(100)}
        claim, found = source.claims.create('orders', lease, limit=1)
        assert len(list(found)) == 1
        source.claims.delete('orders', claim)
        _, found = source.claims.create('orders', lease, limit=1)
        assert [one['body'] for one in found] == ['second']
        copy(source, target)
    [third] = target.claim('orders')[1]
    assert third['body'] == 'third'
    target.messages.bulk_delete('orders', [third['id']])
    with target.later(90):
        assert target.claim('orders')[1] == []
    with target.later(110):
        assert [one['body'] for one in target.claim('orders', ttl=120)[1]] == ['first']
    # The claim that was copied ends, and then its message waits.
    with target.later(155):
        assert target.claim('orders')[1] == []
    with target.later(170):
        assert [one['body'] for one in target.claim('orders')[1]] == ['second']


def test_a_store_is_not_copied_to_itself(source: Place) -> None:
    before = source.counts('orders')
    uris = {source.uri, source.uri.replace('127.0.0.1', 'localhost')}
    if source.name == 'sqlite':
        link = pathlib.Path(source.uri.removeprefix('sqlite:///')).with_name('link')
        link.unlink(missing_ok=True)
        link.symlink_to(source.uri.removeprefix('sqlite:///'))
        uris.add(f'sqlite:///{link}')
    for uri in uris:
        done = run('--from', source.uri, '--to', uri)
        assert done.returncode == 1
        assert 'are the same store' in done.stderr
    assert source.counts('orders') == before


def test_names_that_a_store_cannot_keep_are_told_before_anything_is_copied(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    with contextlib.ExitStack() as stack:
        places = []
        for name in ('sqlite', 'native'):
            directory = tmp_path / name
            directory.mkdir()
            places.append(stack.enter_context(opened_at(name, directory, request)))
        source, target = places
        for queue, project in (('a', PROJECT), ('a.messages', PROJECT), ('q', 'with.dot')):
            source.queues.create(queue, project=project)
            source.messages.post(queue, [{'ttl': 300, 'body': 1}], CLIENT, project=project)
        done = run('--from', source.uri, '--to', target.uri)
        assert done.returncode == 1
        assert "'a.messages'" in done.stderr
        assert "'with.dot'" in done.stderr
        assert target.redis.client.dbsize() == 0
        done = run('--from', source.uri, '--to', target.uri, '--skip-refused', '--json')
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)['skipped'] == 2
        assert target.list('a') == [1]


def test_there_and_back_again(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> None:
    """By the command, which says how much it has copied."""
    with contextlib.ExitStack() as stack:
        places = []
        for name in ('sqlite', 'native', 'postgresql', 'sqlite'):
            directory = tmp_path / str(len(places))
            directory.mkdir()
            places.append(stack.enter_context(opened_at(name, directory, request)))
        first, *others = places
        fill(first)
        for before, after in itertools.pairwise(places):
            done = run('--from', before.uri, '--to', after.uri, '--json')
            assert done.returncode == 0, done.stderr
            counts = json.loads(done.stdout)
            assert counts['added'] == counts['messages'] == COUNT + 4
        for one in others:
            assert [m['body'] for m in read(one, 'orders')] == [
                m['body'] for m in read(first, 'orders')
            ]
            claim, held = one.claims.get('orders', first.held)
            assert len(list(held)) == 5
            assert abs(claim['ttl'] - claim['age'] - 120) < 60
        assert 'added by this run: 0' in run('--from', first.uri, '--to', others[0].uri).stdout


@pytest.mark.parametrize(
    ('options', 'status', 'told'),
    [
        (('--from', 'mongodb://h', '--to', 'redis://h'), 2, 'names no store'),
        (('--from', 'sqlite:///none.sqlite', '--to', 'redis://h'), 1, 'unable to open'),
        (('--from', 'sqlite:', '--to', 'redis://h'), 1, 'sqlite:////absolute/path'),
        (('--from', 'redis://127.0.0.1:1', '--to', 'redis://h'), 1, 'unavailable'),
        (('--to', 'redis://h'), 2, '--from'),
    ],
)
def test_what_cannot_be_copied_is_told(
    options: tuple[str, ...], status: int, told: str, tmp_path: pathlib.Path
) -> None:
    done = run(*options, cwd=tmp_path)
    assert done.returncode == status
    assert told in done.stderr
    assert 'Traceback' not in done.stderr
    assert list(tmp_path.iterdir()) == []


def run(*options: str, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_forked('store', 'copy', *options, cwd=cwd, kind=LOCAL)
