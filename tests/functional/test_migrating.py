"""`zaqar-gevent queue migrate`: a queue moves to another pool while two servers use it."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import itertools
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.postgres_process import PostgresProcess
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, NotFound, ServiceUnavailable
from zaqar_gevent.copying import migrating, moving
from zaqar_gevent.storage.postgresql import moving as postgresql_moving
from zaqar_gevent.storage.redis import moving as redis_moving
from zaqar_gevent.storage.sqlite import moving as sqlite_moving

CONFIG = """
[DEFAULT]
pooling = True
admin_mode = True
[drivers]
management_store = sqlite
redis_driver = {redis_driver}
[drivers:management_store:sqlite]
uri = sqlite:///{directory}/names.sqlite
[drivers:message_store:redis]
uri = redis://localhost
shared_with_upstream = {is_shared}
"""

_databases = itertools.count(1)

BEFORE = 40
"""Messages that a queue has before it moves."""

AROUND = 15
"""Messages that each poster posts before the move begins, at least, and after it has ended."""

PATIENCE_SECONDS = 60.0


class Fleet:
    """Two servers with the same pools."""

    def __init__(self, one: ServerProcess, other: ServerProcess, directory: pathlib.Path) -> None:
        self.servers = (one, other)
        self.directory = directory

    def client(self, number: int = 0, **more: Any) -> Client:
        return Client(self.servers[number].url, project='demo', headers=ADMIN, **more)

    def add_pool(self, name: str, uri: str, weight: int = 100, **more: Any) -> None:
        with self.client() as client:
            client.pools.create(name, uri=uri, weight=weight, **more)

    def move(self, queue: str, pool: str, *options: str) -> dict[str, Any]:
        """Move a queue; the counts."""
        status, out, complaint = self.run(queue, pool, *options)
        assert status == 0, complaint
        return dict(json.loads(out))

    def refuse(self, queue: str, pool: str, *options: str) -> str:
        """Try to move a queue that cannot be moved; the reason."""
        status, _, complaint = self.run(queue, pool, *options)
        assert status == 1, complaint
        return complaint

    def run(self, queue: str, pool: str, *options: str) -> tuple[int, str, str]:
        """Run the command, in this process; its status, output and complaint."""
        out, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):
            status = migrating.main(self.arguments(queue, pool, *options))
        return status, out.getvalue(), complaint.getvalue()

    def arguments(self, queue: str, pool: str, *options: str) -> list[str]:
        config = str(self.directory / 'zaqar.conf')
        return [queue, '--to-pool', pool, '--config-file', config, '--json', *options]


LAST = 'last 0'
ADMIN = {'X-Roles': 'admin'}


@contextlib.contextmanager
def fleet_in(
    directory: pathlib.Path, redis_driver: str = 'native', is_shared: bool = False
) -> Iterator[Fleet]:
    config = CONFIG.format(directory=directory, redis_driver=redis_driver, is_shared=is_shared)
    with (
        ServerProcess(directory, config=config) as one,
        ServerProcess(directory, config=config) as other,
    ):
        yield Fleet(one, other, directory)
        print(one.output, other.output, sep='\n')


@pytest.fixture(scope='module')
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_in(tmp_path_factory.mktemp('fleet')) as found:
        yield found


Where = dict[str, Any]
"""The members of a pool that say where it is."""


class Pair:
    """Two pools, of which new queues get the first."""

    _numbers = itertools.count()

    def __init__(self, fleet: Fleet, source: Where, target: Where) -> None:
        number = next(self._numbers)
        self.source, self.target = f'source{number}', f'target{number}'
        flavor = f'flavor{number}'
        with fleet.client() as client:
            # Stores of different kinds cannot be made in one flavor, but put there.
            fleet.add_pool(self.source, flavor=f'alone{number}', **source)
            # No new queue gets it.
            fleet.add_pool(self.target, flavor=f'apart{number}', weight=0, **target)
            for name in (self.source, self.target):
                client.pools.update(name, flavor=flavor)
            client.flavors.create(flavor, pool_list=[self.source, self.target])
        self.flavor = flavor


def uri_of(kind: str, fleet: Fleet, request: pytest.FixtureRequest) -> Where:
    """A place of its own for a pool."""
    name = f'p{uuid.uuid4().hex}'
    if kind == 'sqlite':
        return {'uri': f'sqlite:///{fleet.directory}/{name}.sqlite'}
    if kind == 'redis':
        redis: RedisProcess = request.getfixturevalue('redis')
        # There are 16 databases, and no two pools may have the same URI.
        number = next(_databases)
        return {'uri': f'{redis.uri}?dbid={1 + number % 15}&socket_timeout={60 + number}'}
    postgres: PostgresProcess = request.getfixturevalue('postgres')
    # No two pools may have the same URI.
    uri = f'{postgres.uri}?application_name={name}'
    return {'uri': uri, 'options': {'schema': name}}


def patiently(work: Callable[[], Any]) -> Any:
    """What a call returns, however long the machine takes to move the rest of a queue."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return work()
        except ServiceUnavailable:
            assert time.monotonic() < deadline


def post(client: Client, queue: str, bodies: list[str]) -> list[str]:
    """Post messages once; their ids."""
    messages = [{'body': body, 'ttl': 600} for body in bodies]
    given = {'queue_name': queue, 'messages': messages, 'post_id': uuid.uuid4().hex}
    ids: list[str] = patiently(lambda: client.call('message_post', **given))['message_ids']
    return ids


def post_until(
    client: Client, queue: str, name: str, done: threading.Event, posted: list[str]
) -> None:
    """Post numbered messages, in small batches, until it is `done`."""
    number = 0
    while not done.is_set():
        bodies = [f'{name} {number + one}' for one in range(3)]
        post(client, queue, bodies)
        posted += bodies
        number += 3
        # Others are to have their turns.
        time.sleep(0.01)


class Thread(threading.Thread):
    """A thread whose error is that of the test."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def wait_for(condition: Callable[[], Any], threads: Sequence[Thread] = ()) -> None:
    """Wait for a state that these threads lead to."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        for thread in threads:
            if thread.error is not None:
                raise thread.error
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Follower:
    """Reads a queue by its markers, a page at a time."""

    def __init__(self, client: Client, queue: str) -> None:
        self._client = client
        self._queue = queue
        self.found: list[Any] = []
        self.ids: list[str] = []
        self._marker: str | None = None

    def read(self) -> int:
        """Read a page; how many messages."""
        given = {} if self._marker is None else {'marker': self._marker}
        asked = {'queue_name': self._queue, 'limit': 7, 'echo': True, 'include_claimed': True}
        page = patiently(lambda: self._client.call('message_list', **asked, **given))
        self.found += [one['body'] for one in page['messages']]
        self.ids += [one['id'] for one in page['messages']]
        self._marker = page.get('marker') or self._marker
        return len(page['messages'])

    def run(self) -> None:
        """Read until the last message."""
        while not self.found or self.found[-1] != LAST:
            if not self.read():
                time.sleep(0.01)


def in_order(found: list[str]) -> dict[str, list[int]]:
    """The numbers of each poster's messages."""
    numbers: dict[str, list[int]] = {}
    for body in found:
        name, number = body.split()
        numbers.setdefault(name, []).append(int(number))
    return numbers


PAIRS = (
    ('sqlite', 'sqlite'),
    ('sqlite', 'postgresql'),
    ('postgresql', 'redis'),
    ('redis', 'sqlite'),
    ('redis', 'postgresql'),
)
ALL_PAIRS = tuple(
    pytest.param(pair, id='-'.join(pair), marks=[] if pair in PAIRS else pytest.mark.slow)
    for pair in itertools.product(('sqlite', 'postgresql', 'redis'), repeat=2)
)


class Load:
    """Posters, readers, workers and a subscriber, on both servers, until they are told to end.

    read: a queue whose messages stay. worked: one whose messages are claimed and deleted.
    """

    def __init__(self, fleet: Fleet, pair: Pair, stack: contextlib.ExitStack) -> None:
        self.read, self.worked = f'read{pair.source}', f'worked{pair.source}'
        self._stopped, self._drained = threading.Event(), threading.Event()
        self._posted: dict[str, list[list[str]]] = {self.read: [], self.worked: []}
        self.done: list[Any] = []
        self.pushed: list[Any] = []

        def connect(number: int) -> Client:
            return stack.enter_context(fleet.client(number, timeout=30))

        self.client = connect(0)
        for queue, posted in self._posted.items():
            self.client.queue(queue).create({'_flavor': pair.flavor})
            first = [f'before {number}' for number in range(BEFORE)]
            posted.append(first)
            for start in range(0, BEFORE, 20):
                post(self.client, queue, first[start : start + 20])
        self._posters = [
            self._make_poster(connect(number), queue, f'poster{number}')
            for queue in self._posted
            for number in (0, 1)
        ]
        self.followers = [Follower(connect(number), self.read) for number in (0, 1)]
        self._readers = [Thread(one.run) for one in self.followers]
        self._workers = [
            Thread(functools.partial(self._work, connect(number))) for number in (0, 1)
        ]
        self._subscriber = Thread(functools.partial(self._subscribe, connect(1)))
        self._threads = (*self._posters, *self._readers, *self._workers, self._subscriber)
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Wait until each poster has posted some more."""
        posted = [one for two in self._posted.values() for one in two[1:]]
        counts = [len(one) for one in posted]
        wait_for(
            lambda: all(
                len(one) >= count + AROUND for one, count in zip(posted, counts, strict=True)
            ),
            self._threads,
        )

    def stop(self) -> None:
        """End, when all that was posted has been read, or worked on."""
        self._stopped.set()
        for thread in self._posters:
            thread.finish()
        post(self.client, self.read, [LAST])
        self._posted[self.read].append([LAST])
        for thread in (*self._readers, self._subscriber):
            thread.finish()
        wait_for(lambda: len(self.done) >= len(self.sent(self.worked)), self._threads)
        self._drained.set()
        for thread in self._workers:
            thread.finish()

    def sent(self, queue: str) -> list[str]:
        return [body for one in self._posted[queue] for body in one]

    def _make_poster(self, client: Client, queue: str, name: str) -> Thread:
        posted: list[str] = []
        self._posted[queue].append(posted)
        return Thread(functools.partial(post_until, client, queue, name, self._stopped, posted))

    def _work(self, client: Client) -> None:
        while not self._drained.is_set():
            for message in patiently(lambda: client.queue(self.worked).claim(limit=5, ttl=300)):
                self.done.append(message.body)
                patiently(message.delete)

    def _subscribe(self, client: Client) -> None:
        with client.queue(self.read).subscribe(marker='') as messages:
            for message in messages:
                self.pushed.append(message.body)
                if message.body == LAST:
                    return


@pytest.mark.parametrize('kinds', PAIRS, ids='-'.join)
def test_a_queue_moves_while_it_is_used(
    fleet: Fleet, kinds: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    pair = Pair(fleet, *(uri_of(kind, fleet, request) for kind in kinds))
    with contextlib.ExitStack() as stack:
        load = Load(fleet, pair, stack)
        load.wait()
        counts = [fleet.move(queue, pair.target) for queue in (load.read, load.worked)]
        load.wait()
        load.stop()
        left = Follower(load.client, load.worked)
        left.read()

    wanted = {
        name: list(range(len(numbers))) for name, numbers in in_order(load.sent(load.read)).items()
    }
    for found in (*(one.found for one in load.followers), load.pushed):
        assert in_order(found) == wanted
    one, other = load.followers
    assert one.found == other.found
    assert len(set(one.ids)) == len(one.ids)
    assert sorted(load.done) == sorted(load.sent(load.worked))
    assert left.found == []
    assert all(count['pause'] > 0 for count in counts)


_MODULES: dict[str, Any] = {
    'sqlite': sqlite_moving,
    'postgresql': postgresql_moving,
    'redis': redis_moving,
}


def claim(client: Client, queue: str, limit: int) -> tuple[str, list[dict[str, Any]]]:
    """Claim some messages; the claim's id and them."""
    found = client.call('claim_create', queue_name=queue, limit=limit, ttl=300, grace=60)
    messages = found['messages']
    return messages[0]['claim_id'], messages


def body_of(client: Client, queue: str, message_id: str) -> Any:
    found = client.call('message_get_many', queue_name=queue, message_ids=[message_id])
    return found['messages'][0]['body']


@pytest.mark.parametrize('kinds', ALL_PAIRS)
def test_all_that_hangs_on_a_queue_goes_with_it(
    fleet: Fleet, kinds: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    pair = Pair(fleet, *(uri_of(kind, fleet, request) for kind in kinds))
    queue = f'all{pair.source}'
    with fleet.client() as client, fleet.client(1) as other:
        source = client.queue(queue)
        source.create({'_flavor': pair.flavor})
        ids = post(client, queue, [f'm {number}' for number in range(6)])
        first = client.call(
            'message_post', queue_name=queue, messages=[{'body': 'once', 'ttl': 600}], post_id='x'
        )
        source.post('marked', ttl=600)
        late = source.post('late', ttl=600, delay=900)
        held, messages = claim(client, queue, 3)
        follower = Follower(client, queue)
        follower.read()
        given = {'ttl': 600, 'options': {'from': 'a test'}, 'queue_name': queue}
        hook = 'http://127.0.0.1:9/hook'
        subscription = client.call('subscription_create', subscriber=hook, **given)
        subscription_id = subscription['subscription_id']

        counts = fleet.move(queue, pair.target)

        assert (counts['messages'], counts['claimed'], counts['delayed']) == (9, 3, 1)
        assert counts['subscriptions'] == 1
        # On both servers the old place is remembered still.
        again = other.call(
            'message_post', queue_name=queue, messages=[{'body': 'once', 'ttl': 600}], post_id='x'
        )
        assert again['message_ids'] == first['message_ids']
        follower.read()
        assert follower.found == [*(f'm {number}' for number in range(6)), 'once', 'marked']
        assert follower.ids[:7] == [*ids, *first['message_ids']]
        shown = other.call('claim_get', queue_name=queue, claim_id=held)
        assert [one['id'] for one in shown['messages']] == [one['id'] for one in messages]
        other.call('claim_update', queue_name=queue, claim_id=held, ttl=300, grace=60)
        other.call('message_delete', queue_name=queue, message_id=ids[0], claim_id=held)
        with pytest.raises(NotFound):
            client.call('message_get', queue_name=queue, message_id=ids[0])
        client.call('claim_delete', queue_name=queue, claim_id=held)
        assert body_of(client, queue, ids[1]) == 'm 1'
        assert body_of(client, queue, late[0]) == 'late'
        kept = other.call('subscription_get', queue_name=queue, subscription_id=subscription_id)
        assert (kept['subscriber'], kept['options']) == (hook, {'from': 'a test'})
        client.call('subscription_delete', queue_name=queue, subscription_id=subscription_id)
        assert client.call('subscription_list', queue_name=queue)['subscriptions'] == []
        assert other.queue(queue).stats()['messages']['total'] == 8
        new = post(client, queue, ['new'])
        follower.read()
        assert follower.found[-1] == 'new'
        assert follower.ids[-1] == new[0]
        assert follower.ids == sorted(follower.ids) or 'redis' in kinds
        source.purge()
        assert source.stats()['messages']['total'] == 0
        source.delete()
        assert not source.exists()


KILLING = """
import importlib, os, signal, sys
from zaqar_gevent.copying import moving
from zaqar_gevent import cmd

def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

store, place, name = sys.argv[1].split('.')
if name in ('commit', 'write_subscriptions'):
    # Killed while the queue is closed, for no longer than need be.
    moving.CLOSED_SECONDS = 1.0
module = importlib.import_module(f'zaqar_gevent.storage.{store}.moving')
setattr(getattr(module, place), name, kill)
sys.exit(cmd.main(['queue', 'migrate', *sys.argv[2:]]))
"""
POINTS = (
    pytest.param('sqlite.Destination.write', marks=pytest.mark.slow),
    pytest.param('sqlite.Destination.write_subscriptions', marks=pytest.mark.slow),
    'sqlite.Origin.commit',
    'sqlite.Destination.open',
    pytest.param('sqlite.Origin.leave', marks=pytest.mark.slow),
    pytest.param('redis.Destination.write', marks=pytest.mark.slow),
    pytest.param('redis.Destination.write_subscriptions', marks=pytest.mark.slow),
    pytest.param('redis.Origin.commit', marks=pytest.mark.slow),
    pytest.param('redis.Destination.open', marks=pytest.mark.slow),
    'redis.Origin.leave',
)


@pytest.mark.parametrize('point', POINTS)
def test_a_move_that_was_killed_is_ended_when_it_is_repeated(
    fleet: Fleet, point: str, request: pytest.FixtureRequest
) -> None:
    store = point.partition('.')[0]
    pair = Pair(fleet, *(uri_of(store, fleet, request) for _ in range(2)))
    queue = f'killed{pair.source}'
    with fleet.client(timeout=30) as client, fleet.client(1, timeout=30) as other:
        client.queue(queue).create({'_flavor': pair.flavor})
        sent = [f'before {number}' for number in range(5)]
        post(client, queue, sent)
        follower = Follower(other, queue)
        follower.read()
        command = (sys.executable, '-c', KILLING, point, *fleet.arguments(queue, pair.target))
        killed = subprocess.run(command, timeout=PATIENCE_SECONDS, check=False)
        assert killed.returncode == -signal.SIGKILL
        # It is used from one pool, by both servers, and the same.
        for number, one in enumerate((client, other, client)):
            post(one, queue, [f'between {number}'])
            sent.append(f'between {number}')
        counts = fleet.move(queue, pair.target)
        is_moved = point.endswith(('Destination.open', 'Origin.leave'))
        assert counts['was_interrupted'] == is_moved
        assert is_moved or counts['messages'] == len(sent)
        assert 'already' in fleet.refuse(queue, pair.target)
        post(other, queue, ['after 0'])
        sent.append('after 0')
        follower.read()
        follower.read()
        assert follower.found == sent
        messages = [
            message.body for _ in range(2) for message in client.queue(queue).claim(limit=10)
        ]
        assert messages == sent


def test_what_cannot_be_moved_is_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(moving, 'AWAY_SECONDS', 3600.0)
    pair = Pair(fleet, *(uri_of('sqlite', fleet, request) for _ in range(2)))
    queue = f'refused{pair.source}'
    with fleet.client() as client:
        client.queue(queue).create({'_flavor': pair.flavor})
        post(client, queue, ['kept'])
        other = f'other{pair.source}'
        fleet.add_pool(other, weight=0, **uri_of('sqlite', fleet, request))

        assert f'in the pool {pair.source!r} already' in fleet.refuse(queue, pair.source)
        assert "no pool 'nowhere'" in fleet.refuse(queue, 'nowhere')
        assert 'no such queue' in fleet.refuse('nothing', pair.target)
        assert 'no such queue' in fleet.refuse(queue, pair.target, '--project', 'others')
        assert f'asks for the flavor {pair.flavor!r}' in fleet.refuse(queue, other)
        fleet.move(queue, pair.target)
        assert 'left the pool' in fleet.refuse(queue, pair.source)
        assert [one.body for one in client.queue(queue).claim()] == ['kept']


def test_the_command_says_what_it_did(fleet: Fleet, request: pytest.FixtureRequest) -> None:
    pair = Pair(fleet, *(uri_of('sqlite', fleet, request) for _ in range(2)))
    queue = f'told{pair.source}'
    with fleet.client() as client:
        client.queue(queue).create({'_flavor': pair.flavor})
        post(client, queue, ['one', 'two'])
    options = fleet.arguments(queue, pair.target)
    options.remove('--json')
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert migrating.main(options) == 0
    assert f'{queue} is in the pool {pair.target}.\nmessages: 2\n' in out.getvalue()
    assert 'closed for: 0.' in out.getvalue()


def test_a_server_without_pools_has_nothing_to_move(tmp_path: pathlib.Path) -> None:
    config = tmp_path / 'zaqar.conf'
    config.write_text('[DEFAULT]\npooling = False\n')
    complaint = io.StringIO()
    with contextlib.redirect_stderr(complaint):
        status = migrating.main(['q', '--to-pool', 'p', '--config-file', str(config)])
    assert status == 1
    assert 'Set pooling = true' in complaint.getvalue()


@pytest.mark.slow
def test_a_server_that_is_killed_meanwhile_changes_nothing(
    tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    with fleet_in(tmp_path) as fleet:
        pair = Pair(fleet, *(uri_of('sqlite', fleet, request) for _ in range(2)))
        sent = [f'm {number}' for number in range(400)]
        with fleet.client() as client, fleet.client(1) as other:
            client.queue('q').create({'_flavor': pair.flavor})
            for start in range(0, len(sent), 20):
                post(client, 'q', sent[start : start + 20])
            # It has the old place in mind, and a claim under way.
            held, _ = claim(other, 'q', 3)
            fleet.servers[1].kill()
            counts = fleet.move('q', pair.target)
            assert (counts['messages'], counts['claimed']) == (400, 3)
        fleet.servers[1].start()
        for number in (0, 1):
            with fleet.client(number) as client:
                follower = Follower(client, 'q')
                while follower.read():
                    pass
                assert follower.found == sent
                assert len(client.call('claim_get', queue_name='q', claim_id=held)['messages']) == 3


@pytest.mark.slow
@pytest.mark.parametrize('kinds', PAIRS[1:], ids='-'.join)
def test_a_store_that_is_killed_meanwhile_leaves_the_queue_where_it_is(
    tmp_path: pathlib.Path,
    kinds: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(fleet_in(tmp_path))
        if kinds[1] == 'redis':
            redis = stack.enter_context(RedisProcess(tmp_path))
            place: Where = {'uri': redis.uri}
            module: Any = redis_moving
            kill = redis.kill
        else:
            postgres = stack.enter_context(PostgresProcess())
            place = {'uri': postgres.uri}
            module = postgresql_moving
            kill = postgres.kill
        pair = Pair(fleet, uri_of(kinds[0], fleet, request), place)
        write = module.Destination.write

        def write_late(*arguments: Any) -> None:
            kill()
            write(*arguments)

        monkeypatch.setattr(module.Destination, 'write', write_late)
        with fleet.client() as client, fleet.client(1) as other:
            client.queue('q').create({'_flavor': pair.flavor})
            post(client, 'q', ['one', 'two'])
            complaint = fleet.refuse('q', pair.target)
            assert 'Run the command again' in complaint
            post(other, 'q', ['three'])
            assert [one.body for one in client.queue('q').claim()] == ['one', 'two', 'three']


def test_a_move_that_fails_leaves_nothing_behind(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pair = Pair(fleet, *(uri_of('sqlite', fleet, request) for _ in range(2)))
    queue = f'failed{pair.source}'

    def fail(*arguments: Any) -> bool:
        return False

    with fleet.client() as client, fleet.client(1) as other:
        client.queue(queue).create({'_flavor': pair.flavor})
        post(client, queue, ['one'])
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_moving.Origin, 'commit', fail)
            assert 'could not be moved within' in fleet.refuse(queue, pair.target)
        post(other, queue, ['two'])
        # The pool can be used at once, and has nothing of it.
        assert fleet.move(queue, pair.target)['messages'] == 2
        assert [one.body for one in other.queue(queue).claim()] == ['one', 'two']


@pytest.mark.parametrize('kinds', ALL_PAIRS)
def test_what_changes_while_it_is_copied_is_copied_again(
    fleet: Fleet,
    kinds: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    pair = Pair(fleet, *(uri_of(kind, fleet, request) for kind in kinds))
    queue = f'changing{pair.source}'
    origin: Any = _MODULES[kinds[0]].Origin
    with fleet.client() as client, fleet.client(1) as other:
        client.queue(queue).create({'_flavor': pair.flavor})
        ids = post(client, queue, [f'm {number}' for number in range(8)])
        renewed, _ = claim(client, queue, 2)
        released, _ = claim(client, queue, 2)
        taken: list[str] = []

        def change(self: Any, mark: Any) -> None:
            # All has been copied once.
            client.call('claim_update', queue_name=queue, claim_id=renewed, ttl=3000, grace=60)
            client.call('claim_delete', queue_name=queue, claim_id=released)
            client.call('message_delete', queue_name=queue, message_id=ids[7])
            taken.append(claim(other, queue, 1)[0])
            post(other, queue, ['m 8'])
            close_queue(self, mark)

        close_queue = origin.close_queue
        with monkeypatch.context() as patched:
            patched.setattr(origin, 'close_queue', change)
            counts = fleet.move(queue, pair.target)
        assert (counts['messages'], counts['claimed'], counts['rounds']) == (8, 3, 2)
        follower = Follower(other, queue)
        follower.read()
        follower.read()
        assert follower.found == [f'm {number}' for number in (*range(7), 8)]
        # The two that were released are free, with the first of them claimed again.
        found = client.call('claim_get', queue_name=queue, claim_id=taken[0])['messages']
        assert [one['id'] for one in found] == [ids[2]]
        kept = other.call('claim_get', queue_name=queue, claim_id=renewed)
        assert (kept['ttl'], [one['id'] for one in kept['messages']]) == (3000, ids[:2])
        with pytest.raises(NotFound):
            client.call('claim_get', queue_name=queue, claim_id=released)
        stats = other.queue(queue).stats()['messages']
        assert (stats['claimed'], stats['total']) == (3, 8)
        assert [one.body for one in other.queue(queue).claim(limit=20)] == [
            f'm {number}' for number in (3, 4, 5, 6, 8)
        ]


@pytest.mark.parametrize(
    'kinds',
    [
        ('sqlite', 'postgresql', 'sqlite'),
        ('redis', 'sqlite', 'redis'),
        pytest.param(('redis', 'redis', 'postgresql'), marks=pytest.mark.slow),
        pytest.param(('redis', 'postgresql', 'redis'), marks=pytest.mark.slow),
        pytest.param(('postgresql', 'redis', 'sqlite'), marks=pytest.mark.slow),
    ],
    ids='-'.join,
)
def test_a_queue_that_moves_again_keeps_its_ids_and_markers(
    fleet: Fleet, kinds: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    pair = Pair(fleet, *(uri_of(kind, fleet, request) for kind in kinds[:2]))
    last = f'last{pair.source}'
    queue = f'again{pair.source}'
    with fleet.client() as client, fleet.client(1) as other:
        place = uri_of(kinds[2], fleet, request)
        fleet.add_pool(last, weight=0, flavor=f'last{pair.flavor}', **place)
        client.pools.update(last, flavor=pair.flavor)
        client.queue(queue).create({'_flavor': pair.flavor})
        ids = post(client, queue, ['m 0', 'm 1'])
        follower = Follower(other, queue)
        follower.read()
        fleet.move(queue, pair.target)
        ids += post(other, queue, ['m 2', 'm 3'])
        held, _ = claim(client, queue, 3)
        fleet.move(queue, last)
        ids += post(client, queue, ['m 4'])
        follower.read()
        assert follower.found == [f'm {number}' for number in range(5)]
        assert follower.ids == ids
        for number in (0, 2):
            client.call('message_delete', queue_name=queue, message_id=ids[number], claim_id=held)
        whole = Follower(client, queue)
        whole.read()
        assert whole.ids == [ids[1], ids[3], ids[4]]


@pytest.mark.parametrize('kind', ['sqlite', 'redis', 'postgresql'])
def test_a_redrive_is_not_moved_away_from(
    fleet: Fleet, kind: str, request: pytest.FixtureRequest
) -> None:
    """Queue and dead letter queue move one after the other, and not while a redrive is at work."""
    pair = Pair(fleet, *(uri_of(one, fleet, request) for one in (kind, 'sqlite')))
    queue, dead = f'redriven{pair.source}', f'dead{pair.source}'
    with fleet.client() as client, fleet.client(1) as other:
        client.queue(dead).create({'_flavor': pair.flavor})
        settings = {'_dead_letter_queue': dead, '_max_claim_count': 3}
        client.queue(queue).create({'_flavor': pair.flavor, **settings})
        post(client, queue, [f'm {number}' for number in range(4)])
        for message in client.queue(queue).claim(limit=4):
            message.reject('broken')
        # One is moved at once, and the next ones when the test is long over.
        redrive = client.queue(dead).redrive(rate=0.01)
        wait_for(lambda: client.queue(dead).get_redrive(redrive.id).moved == 1)
        assert 'a redrive of dead letters' in fleet.refuse(dead, pair.target)
        # It waits for a queue that it does not know to be moved, or is told that it has.
        assert fleet.move(queue, pair.target)['messages'] == 1
        redrive.cancel()
        assert fleet.move(dead, pair.target)['messages'] == 3
        again = other.queue(dead).redrive()
        wait_for(lambda: client.queue(dead).get_redrive(again.id).state == 'finished')
        found = other.queue(queue).claim(limit=10)
        assert [one.body for one in found] == [f'm {number}' for number in range(4)]


@pytest.mark.parametrize('kind', ['sqlite', 'postgresql'])
def test_groups_and_schedules_leave_redis_as_they_are(
    fleet: Fleet, kind: str, request: pytest.FixtureRequest
) -> None:
    pair = Pair(fleet, *(uri_of(one, fleet, request) for one in ('redis', kind)))
    queue = f'grouped{pair.source}'
    with fleet.client() as client, fleet.client(1) as other:
        client.queue(queue).create({'_flavor': pair.flavor})
        client.queue(queue).configure(ordered_groups=True)
        for number in range(6):
            client.queue(queue).post(
                f'm {number}', group=f'g{number % 2}', attributes={'number': str(number)}
            )
        at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
        client.queue(queue).post('later', deliver_at=at, ttl=60)
        held, _ = claim(client, queue, 1)
        counts = fleet.move(queue, pair.target)
        assert (counts['messages'], counts['claimed'], counts['delayed']) == (7, 1, 1)
        # Of the group whose first message is held, nothing is given.
        found = list(other.queue(queue).claim(limit=10))
        assert [one.body for one in found] == ['m 1', 'm 3', 'm 5']
        assert (found[0].group, found[0].attributes) == ('g1', {'number': '1'})
        client.call('claim_delete', queue_name=queue, claim_id=held)
        assert [one.body for one in other.queue(queue).claim(limit=10)] == ['m 0', 'm 2', 'm 4']
        assert other.queue(queue).stats()['messages']['total'] == 7
