"""The driver for PostgreSQL when the server is gone, full, busy, or not what it should be."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import pwd
import random
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psycopg
import pytest
from zaqar.storage import errors, pipeline
from zaqar.transport.validation import ValidationFailed

from tests.postgres_process import USER, PostgresProcess
from tests.storage.conftest import Store, load_postgresql, open_drivers
from tests.storage.relay import Relay
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.storage import stores
from zaqar_gevent.storage.core import links, pages
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.postgresql import calls, kinds, options, schema, upkeep

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'zaqar_gevent'"
END_CONNECTIONS = f"""{CONNECTIONS.replace('count(*)', 'count(pg_terminate_backend(pid))')}"""

# A call may wait for an answer, then for a connection; a busy machine has some of it.
MOST_SECONDS = 20.0


@contextlib.contextmanager
def open_store(
    uri: str, directory: pathlib.Path, name: str | None = None, timeout: float = 2.0
) -> Iterator[Store]:
    """A store at `uri`, in a schema of its own unless one is named.

    timeout: seconds that it waits for an answer.
    """
    gevent.get_hub()
    conf = load_postgresql(uri, directory, name)
    for group in (options.MESSAGE_GROUP, options.MANAGEMENT_GROUP):
        conf.set_override('timeout', timeout, group)
    driver, control = open_drivers('postgresql', conf)
    yield Store('postgresql', pipeline.DataDriver(conf, driver, control), control, None)
    driver.close()
    control.close()


@pytest.fixture(scope='module')
def own() -> Iterator[PostgresProcess]:
    """A server that the tests may do with what they like, if they leave it running."""
    with PostgresProcess() as process:
        yield process


@pytest.fixture
def store(own: PostgresProcess, tmp_path: pathlib.Path) -> Iterator[Store]:
    """One whose calls wait for as long as a slow machine needs."""
    with open_store(f'{own.uri}?connect_timeout=60', tmp_path, timeout=60.0) as opened:
        yield opened


@pytest.fixture
def impatient(own: PostgresProcess, tmp_path: pathlib.Path) -> Iterator[Store]:
    """One whose calls soon give up."""
    with open_store(f'{own.uri}?connect_timeout=2', tmp_path) as opened:
        yield opened


@pytest.fixture
def relay(own: PostgresProcess) -> Iterator[Relay]:
    opened = Relay(own.port)
    yield opened
    opened.close()


def through(relay: Relay, patience: int = 2) -> str:
    return f'postgresql://{USER}@127.0.0.1:{relay.port}/postgres?sslmode=disable&gssencmode=disable&connect_timeout={patience}'


def attempt(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns or raises, and how many seconds it takes."""
    began = time.monotonic()
    try:
        return call(), time.monotonic() - began
    except StoreUnavailable as error:
        return error, time.monotonic() - began


def all_at_once(*attempts: Callable[[], Any]) -> list[Any]:
    greenlets = [gevent.spawn(attempt, one) for one in attempts]
    gevent.joinall(greenlets, timeout=60, raise_error=True)
    return [greenlet.get(block=False) for greenlet in greenlets]


def test_a_paused_server_is_given_up_in_time(
    own: PostgresProcess, relay: Relay, tmp_path: pathlib.Path
) -> None:
    with open_store(through(relay), tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'before')
        ticks = []

        def tick() -> None:
            while True:
                gevent.sleep(0.05)
                ticks.append(time.monotonic())

        ticker = gevent.spawn(tick)
        relay.is_silent.set()
        made = [lambda: store.post(queue, 'x'), lambda: store.list(queue)] * 4
        outcomes = all_at_once(*made, *[lambda: store.claim(queue)] * 2)
        relay.is_silent.clear()
        ticker.kill()
        assert all(isinstance(outcome, StoreUnavailable) for outcome, _ in outcomes)
        assert max(seconds for _, seconds in outcomes) < MOST_SECONDS
        # The others go on meanwhile.
        assert len(ticks) > 5
        assert store.post(queue, 'y')
        # A post whose outcome is not known may have been made.
        assert set(store.list(queue, limit=20)) <= {'before', 'x', 'y'}


def test_a_server_that_does_not_answer_is_soon_said_to_be_unwell(
    relay: Relay, tmp_path: pathlib.Path
) -> None:
    with open_store(through(relay, 600), tmp_path, timeout=600.0) as store:
        alive = functools.partial(stores._are_alive, store.data, store.control)
        with gevent.Timeout(300):
            while not alive():
                gevent.sleep(0.02)
            relay.is_silent.set()
            assert not alive()
            relay.cut()
            assert not alive()
            relay.is_silent.clear()
            relay.cut()
            while not alive():
                gevent.sleep(0.02)


@pytest.mark.parametrize('end', [PostgresProcess.stop, PostgresProcess.kill])
def test_calls_wait_for_a_server_that_restarts(
    store: Store, own: PostgresProcess, end: Callable[[PostgresProcess], None]
) -> None:
    queue = store.queue()
    ids = store.post(queue, 'before')
    end(own)
    restart = gevent.get_hub().threadpool.spawn(own.start)
    outcomes = all_at_once(*[lambda: store.post(queue, 'x')] * 5)
    restart.get()
    assert all(isinstance(outcome, list) for outcome, _ in outcomes)
    assert store.list(queue) == ['before', *['x'] * 5]
    assert store.list(queue, marker=ids[0]) == ['x'] * 5


def test_a_server_that_is_gone_is_told_in_time(impatient: Store, own: PostgresProcess) -> None:
    store = impatient
    queue = store.queue()
    own.stop()
    try:
        for outcome, seconds in all_at_once(*[lambda: store.list(queue)] * 5):
            assert isinstance(outcome, StoreUnavailable)
            assert str(own.port) in str(outcome)
            assert seconds < MOST_SECONDS
        assert not store.data.is_alive()
    finally:
        own.start()
    assert store.data.is_alive()
    assert store.list(queue) == []


def test_what_was_acknowledged_outlives_a_crash(store: Store, own: PostgresProcess) -> None:
    queue = store.queue()
    posted: list[str] = []
    is_over = False

    def work(number: int) -> None:
        count = 0
        while not is_over:
            name = f'{number}-{count}'
            try:
                store.post(queue, name, post_id=name)
            except StoreUnavailable:
                continue
            posted.append(name)
            count += 1

    workers = [gevent.spawn(work, number) for number in range(8)]
    for enough in (20, 40, 60):
        with gevent.Timeout(60):
            while len(posted) < enough:
                gevent.sleep(0.02)
        if enough < 60:
            own.kill()
            gevent.get_hub().threadpool.apply(own.start)
    is_over = True
    gevent.joinall(workers, timeout=90, raise_error=True)
    found = store.list(queue, limit=1_000_000)
    assert sorted(found) == sorted(posted)
    for number in range(8):
        mine = [one for one in found if one.startswith(f'{number}-')]
        assert mine == [f'{number}-{count}' for count in range(len(mine))]


def test_connections_that_are_ended_are_opened_anew(store: Store, own: PostgresProcess) -> None:
    queue = store.queue()
    end = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'zaqar_gevent'"""
    for number in range(3):
        assert store.post(queue, number)
        assert own.run(end)[0][0] >= 1
        assert store.list(queue) == list(range(number + 1))
        assert own.run(end)[0][0] >= 1
        # Ended while it is in use, too.
        outcomes = all_at_once(
            *[lambda: store.list(queue)] * 3, lambda: own.run(end), lambda: store.list(queue)
        )
        assert not any(isinstance(outcome, StoreUnavailable) for outcome, _ in outcomes)


def test_too_many_connections_are_waited_for(own: PostgresProcess, tmp_path: pathlib.Path) -> None:
    own.run('CREATE ROLE few LOGIN CONNECTION LIMIT 6')
    own.run('GRANT ALL ON DATABASE postgres TO few')
    uri = own.uri.replace(USER, 'few') + '?connect_timeout=2'
    with open_store(uri, tmp_path) as limited:
        queue = limited.queue()
        with contextlib.ExitStack() as taken:
            while True:
                try:
                    taken.enter_context(psycopg.connect(uri))
                except psycopg.OperationalError:
                    break
            [(outcome, seconds)] = all_at_once(lambda: limited.post(queue, 'x'))
            assert isinstance(outcome, StoreUnavailable)
            assert not isinstance(outcome, OutcomeUnknown)
            assert 'too many connections' in str(outcome)
            assert seconds < MOST_SECONDS
        assert limited.post(queue, 'y')
        assert limited.messages.first(queue)['body'] == 'y'


def test_a_standby_is_not_written(
    store: Store, own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    uri = f'{own.uri}?connect_timeout=5'
    with open_store(uri, tmp_path, _schema_of(store), timeout=60.0) as other:
        queue = other.queue()
        own.run('ALTER DATABASE postgres SET default_transaction_read_only = on')
        try:
            # Connections that are open are asked anew when they are made.
            own.run("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'zaqar_gevent'""")
            with pytest.raises(StoreUnavailable, match='read-only'):
                other.post(queue, 'x')
        finally:
            with psycopg.connect(own.uri, autocommit=True) as connection:
                connection.execute('SET default_transaction_read_only = off')
                connection.execute('ALTER DATABASE postgres RESET default_transaction_read_only')
    assert store.post(queue, 'y')
    assert store.list(queue) == ['y']


def test_an_outcome_that_is_not_known_is_told(
    relay: Relay, own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    with open_store(through(relay, 60), tmp_path, timeout=60.0) as store:
        queue = store.queue()
        store.post(queue, 'before')
        relay.loses.set()
        outcomes = all_at_once(*[lambda: store.post(queue, 'x')] * 5)
        assert all(isinstance(outcome, OutcomeUnknown) for outcome, _ in outcomes)
        assert 'post_id' in outcomes[0][0].explanation
        assert store.list(queue) == ['before', *['x'] * 5]


def test_what_can_be_repeated_is(
    relay: Relay, own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    with open_store(through(relay, 60), tmp_path, timeout=60.0) as store:
        queue = store.queue()
        ids = store.post(queue, 'x', post_id='warm')
        relay.loses.set()
        once = store.post(queue, 'y', post_id='p1')
        assert store.list(queue) == ['x', 'y']
        relay.loses.set()
        assert store.list(queue) == ['x', 'y']
        store.data.is_alive()
        relay.loses.set()
        store.messages.delete(queue, ids[0])
        assert [one['id'] for one in store.messages.bulk_get(queue, [*ids, *once])] == once
        store.post(queue, 'z', post_id='p2')
        relay.loses.set()
        claim, messages = store.claim(queue)
        assert [one['body'] for one in messages] == ['y', 'z']
        assert [one['body'] for one in store.claims.get(queue, claim)[1]] == ['y', 'z']


def test_claims_that_were_sent_as_one_are_each_found_again(
    relay: Relay, own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    """Where their common answer is lost."""
    with open_store(through(relay, 60), tmp_path, timeout=60.0) as store:
        queue, name = store.queue(), _schema_of(store)
        store.post(queue, *range(7))
        store.data.is_alive()
        relay.loses.set()
        outcomes = all_at_once(*[lambda: store.claim(queue, limit=2)] * 5)
        found = [[one['body'] for one in messages] for (_, messages), _ in outcomes]
        assert sorted(found) == [[], [0, 1], [2, 3], [4, 5], [6]]
        for (claim, messages), _ in outcomes:
            if messages:
                assert list(store.claims.get(queue, claim)[1]) == messages
        assert store.counts(queue) == (7, 0)
        # They have their end in common, as they were one call.
        assert own.run(f'SELECT count(*), count(DISTINCT expires) FROM {name}.claims') == [(4, 1)]
        relay.loses.set()
        deleted = all_at_once(
            *[
                functools.partial(
                    store.messages.bulk_delete,
                    *(queue, [one['id'] for one in messages]),
                    claim_ids=[claim],
                )
                for (claim, messages), _ in outcomes
                if messages
            ]
        )
        assert [outcome for outcome, _ in deleted] == [None] * 4
        assert store.counts(queue) == (0, 0)


def test_a_claim_that_fails_does_not_fail_those_it_was_sent_with(
    store: Store, own: PostgresProcess
) -> None:
    queue, name = store.queue(), _schema_of(store)
    ids = store.post(queue, *range(8))
    own.run(
        f"""ALTER TABLE {name}.messages ADD CONSTRAINT bad
            CHECK (claim IS NULL OR position <> {int(ids[3], 16)})"""
    )
    outcomes = all_at_once(*[lambda: store.claim(queue, limit=2)] * 4)
    refused = [one for one, _ in outcomes if isinstance(one, StoreUnavailable)]
    found = [one[1] for one, _ in outcomes if not isinstance(one, StoreUnavailable)]
    # Each tries by itself, and finds the message that cannot be claimed.
    assert len(refused) + len(found) == 4
    assert [one['body'] for one in found[0]] == [0, 1]
    assert len(found) == 1


def test_a_deadlock_is_got_over(store: Store, own: PostgresProcess) -> None:
    queue = store.queue()
    ids = store.post(queue, 'a', 'b')
    name = _schema_of(store)
    with own.connect() as other:
        other.execute('BEGIN')
        other.execute("SET deadlock_timeout = '10s'")
        statement = f'SELECT 1 FROM {name}.messages WHERE position = %s FOR UPDATE'
        other.execute(statement, [int(ids[1], 16)])
        deleting = gevent.spawn(attempt, lambda: store.messages.bulk_delete(queue, ids))
        waits = 'SELECT count(*) FROM pg_locks WHERE NOT granted'
        while own.run(waits) == [(0,)]:
            gevent.sleep(0.02)
        blocking = gevent.get_hub().threadpool.spawn(other.execute, statement, [int(ids[0], 16)])
        blocking.get(timeout=60)
        other.execute('ROLLBACK')
        outcome, _ = deleting.get(timeout=60)
    assert outcome is None
    assert store.list(queue) == []


def test_a_serialization_failure_is_got_over(store: Store, own: PostgresProcess) -> None:
    queue = store.queue()
    name = _schema_of(store)
    # A sequence keeps its value when the transaction is undone.
    own.run(f"""CREATE TABLE {name}.failing (most int); INSERT INTO {name}.failing VALUES (0);
        CREATE SEQUENCE {name}.failures;
        CREATE FUNCTION {name}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('{name}.failures') <= (SELECT most FROM {name}.failing) THEN
                RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON {name}.messages
        FOR EACH STATEMENT EXECUTE FUNCTION {name}.fail()""")
    for failures, is_got_over in ((3, True), (1000, False)):
        own.run(f'UPDATE {name}.failing SET most = {failures}')
        own.run(f"SELECT setval('{name}.failures', 1, false)")
        outcome, _ = attempt(lambda: store.post(queue, 'x'))
        assert isinstance(outcome, StoreUnavailable) is not is_got_over
        assert not isinstance(outcome, OutcomeUnknown)
    assert 'again and again' in str(outcome)
    own.run(f'DROP TRIGGER fail ON {name}.messages')
    assert store.list(queue) == ['x']


@pytest.mark.parametrize('level', ['repeatable read', 'serializable'])
def test_another_isolation_of_the_database_does_no_harm(
    own: PostgresProcess, tmp_path: pathlib.Path, level: str
) -> None:
    own.run(f'ALTER DATABASE postgres SET default_transaction_isolation = "{level}"')
    try:
        with open_store(f'{own.uri}?connect_timeout=60', tmp_path, timeout=60) as store:
            queue = store.queue()
            claimed: list[str] = []

            def post(number: int) -> None:
                while isinstance(
                    attempt(lambda: store.post(queue, number, post_id=f'p{number}'))[0], Exception
                ):
                    pass

            def work() -> None:
                while len(claimed) < 40:
                    found, _ = attempt(lambda: store.claim(queue, limit=3)[1])
                    if not isinstance(found, Exception):
                        claimed.extend(one['id'] for one in found)

            posts = [functools.partial(post, number) for number in range(40)]
            all_at_once(*posts, *[work] * 5)
            assert len(set(claimed)) == len(claimed) == 40
            assert store.counts(queue) == (40, 0)
    finally:
        own.run('ALTER DATABASE postgres RESET default_transaction_isolation')


def test_limits_of_idle_sessions_are_got_over(own: PostgresProcess, tmp_path: pathlib.Path) -> None:
    own.run('CREATE ROLE idle LOGIN')
    own.run('GRANT ALL ON DATABASE postgres TO idle')
    uri = own.uri.replace(USER, 'idle')
    with open_store(f'{uri}?connect_timeout=60', tmp_path, timeout=60) as limited:
        queue = limited.queue()
        for limit in ('idle_in_transaction_session_timeout', 'idle_session_timeout'):
            own.run(f"ALTER ROLE idle SET {limit} = '500ms'")
        own.run(END_CONNECTIONS)
        for number in range(3):
            assert limited.post(queue, number, post_id=f'p{number}')
            assert limited.list(queue) == list(range(number + 1))
            # The housekeeping uses one of them now and then.
            _wait_for(
                own, f"{CONNECTIONS} AND usename = 'idle'".replace('count(*)', 'count(*) < 2')
            )


@pytest.mark.parametrize('has_id', [True, False])
def test_a_connection_that_is_cut_in_a_transaction(
    relay: Relay, own: PostgresProcess, tmp_path: pathlib.Path, has_id: bool
) -> None:
    """The server goes on with it, since it does not notice before it answers."""
    with open_store(through(relay, 60), tmp_path, timeout=60.0) as store:
        queue = store.queue()
        store.post(queue, 'before')
        name = _schema_of(store)
        more = {'post_id': 'p1'} if has_id else {}
        with own.connect() as other:
            other.execute('BEGIN')
            other.execute(f"SELECT {name}.lock_{schema.digest()}('shop', '{queue}')".encode())
            posting = gevent.spawn(attempt, lambda: store.post(queue, 'x', **more))
            _wait_for(own, 'SELECT count(*) > 0 FROM pg_locks WHERE NOT granted')
            relay.cut()
            gevent.sleep(0)
            if has_id:
                # It is sent once more, and waits behind the first.
                _wait_for(own, 'SELECT count(*) > 1 FROM pg_locks WHERE NOT granted')
            other.execute('ROLLBACK')
        outcome, _ = posting.get(timeout=60)
        if has_id:
            assert isinstance(outcome, list)
        else:
            assert isinstance(outcome, OutcomeUnknown)
        _wait_for(own, 'SELECT count(*) = 0 FROM pg_locks WHERE NOT granted')
        _wait_for_list(store, queue, ['before', 'x'])


def _wait_for(own: PostgresProcess, question: str) -> None:
    deadline = time.monotonic() + 60
    while own.run(question) != [(True,)]:
        assert time.monotonic() < deadline, question
        gevent.sleep(0.02)


def _wait_for_list(store: Store, queue: str, bodies: list[Any]) -> None:
    deadline = time.monotonic() + 60
    while (found := store.list(queue)) != bodies:
        assert time.monotonic() < deadline, found
        gevent.sleep(0.02)


def test_one_call_that_fails_does_not_fail_the_others(store: Store, own: PostgresProcess) -> None:
    queue = store.queue()
    name = _schema_of(store)
    own.run(f"""ALTER TABLE {name}.messages ADD CONSTRAINT small CHECK (ttl < 1000)""")
    outcomes = all_at_once(
        *[lambda: store.post(queue, 'x')] * 5,
        lambda: store.post(queue, 'y', ttl=2000),
        *[lambda: store.post(queue, 'x')] * 5,
    )
    refused = [one for one, _ in outcomes if isinstance(one, StoreUnavailable)]
    assert len(refused) == 1
    assert store.list(queue, limit=20) == ['x'] * 10


def test_a_full_disk_is_told(store: Store, own: PostgresProcess) -> None:
    """As far as PostgreSQL tells: what it cannot write, it undoes."""
    queue = store.queue()
    name = _schema_of(store)
    own.run(f"""CREATE FUNCTION {name}.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = 'disk_full';
        END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON {name}.messages
        FOR EACH STATEMENT EXECUTE FUNCTION {name}.full()""")
    with pytest.raises(StoreUnavailable, match='its disk is full'):
        store.post(queue, 'x')
    assert store.list(queue) == []
    own.run(f'DROP TRIGGER full_disk ON {name}.messages')
    assert store.post(queue, 'y')


@pytest.fixture
def small_disk() -> Iterator[pathlib.Path]:
    """A file system of 2 MB for the user of PostgreSQL."""
    if os.getuid() != 0:
        pytest.skip('only root can mount a file system')
    place = pathlib.Path(tempfile.mkdtemp(prefix='zaqar-disk-'))
    place.chmod(0o755)
    account = pwd.getpwnam('nobody')
    options = f'size=2m,uid={account.pw_uid},gid={account.pw_gid},mode=0700'
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip(f'a file system cannot be mounted: {mounted.stderr.strip()}')
    yield place
    subprocess.run(['umount', '--lazy', str(place)], check=True)
    place.rmdir()


@pytest.mark.slow
def test_nothing_is_lost_when_the_disk_is_full(
    small_disk: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with PostgresProcess() as postgres:
        postgres.run(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        with open_store(f'{postgres.uri}?connect_timeout=10', tmp_path) as store:
            queue = store.queue()
            postgres.run(f'ALTER TABLE {_schema_of(store)}.messages SET TABLESPACE small')
            posted = []
            with pytest.raises(StoreUnavailable, match='its disk is full'):
                while True:
                    number = len(posted)
                    store.post(queue, [number, 'x' * 1000], post_id=f'p{number}')
                    posted.append(number)
            # What is there can be read.
            found = store.list(queue, limit=100_000)
            assert [one[0] for one in found] == posted
            subprocess.run(['mount', '-o', 'remount,size=20m', str(small_disk)], check=True)
            store.post(queue, [len(posted), 'x' * 1000], post_id=f'p{len(posted)}')
            found = store.list(queue, limit=100_000)
            assert [one[0] for one in found] == [*posted, len(posted)]


def test_a_lock_that_is_held_does_not_hold_up_the_others(
    impatient: Store, own: PostgresProcess
) -> None:
    """By somebody else's transaction, as a migration of theirs."""
    store = impatient
    queue = store.queue()
    ids = store.post(queue, 'a')
    name = _schema_of(store)
    with own.connect() as other:
        other.execute('BEGIN')
        other.execute(f'LOCK TABLE {name}.messages IN EXCLUSIVE MODE')
        [(outcome, seconds), (listed, _)] = all_at_once(
            lambda: store.messages.delete(queue, ids[0]), lambda: store.list(queue)
        )
        assert isinstance(outcome, StoreUnavailable)
        assert seconds < MOST_SECONDS
        assert listed == ['a']
        other.execute('ROLLBACK')
    store.messages.delete(queue, ids[0])
    assert store.list(queue) == []


def test_what_waits_is_bounded(
    relay: Relay, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(through(relay), tmp_path) as store:
        queue = store.queue()
        store.list(queue)
        monkeypatch.setattr(links, 'MAX_WAITING', 5)
        relay.is_silent.set()
        outcomes = all_at_once(*[lambda: store.list(queue)] * 20)
        relay.is_silent.clear()
        at_once = [one for one, _ in outcomes if 'too many calls' in str(one)]
        assert len(at_once) >= 10
        assert store.list(queue) == []


def test_whoever_waits_is_told_when_the_driver_is_closed(
    relay: Relay, tmp_path: pathlib.Path
) -> None:
    with open_store(through(relay), tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'x')
        store.list(queue)
        relay.is_silent.set()
        waiting = [gevent.spawn(attempt, lambda: store.post(queue, 'x')) for _ in range(3)]
        gevent.sleep(0.1)
        waiting += [gevent.spawn(attempt, lambda: store.list(queue)) for _ in range(3)]
        gevent.sleep(0)
    gevent.joinall(waiting, timeout=60, raise_error=True)
    assert all(isinstance(one.value[0], StoreUnavailable) for one in waiting)


def test_a_killed_greenlet_leaves_nothing_behind(relay: Relay, tmp_path: pathlib.Path) -> None:
    with open_store(through(relay), tmp_path) as store:
        queue = store.queue()
        store.post(queue, 'before')
        relay.is_silent.set()
        first = [gevent.spawn(attempt, lambda: store.post(queue, 'x')) for _ in range(2)]
        gevent.sleep(0.1)
        first += [gevent.spawn(attempt, lambda: store.post(queue, 'x'))]
        gevent.sleep(0.1)
        never_sent = gevent.spawn(attempt, lambda: store.post(queue, 'never'))
        gevent.sleep(0.1)
        never_sent.kill()
        relay.is_silent.clear()
        gevent.joinall(first, timeout=60)
        assert 'never' not in store.list(queue)


def test_tables_of_another_version_are_refused(
    store: Store, own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    name = _schema_of(store)
    own.run(f'UPDATE {name}.schema_version SET version = 99')
    with (
        pytest.raises(UnsuitableStore, match='version 99'),
        open_store(f'{own.uri}?connect_timeout=2', tmp_path, name),
    ):
        pass
    own.run('CREATE SCHEMA theirs')
    own.run('CREATE TABLE theirs.messages (id int)')
    with (
        pytest.raises(UnsuitableStore, match='another application'),
        open_store(own.uri, tmp_path, 'theirs'),
    ):
        pass


def test_servers_that_start_at_once_make_the_tables_once(
    own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    name = f'at_once_{uuid.uuid4().hex}'
    with own.connect() as other:
        # All have looked, and wait for their turn.
        other.execute('BEGIN')
        other.execute('CREATE SCHEMA waiting')
        opened = [
            gevent.spawn(
                schema.ensure,
                _address(own, name),
                calls.wait_in_greenlet,
                gevent.socket.getaddrinfo,
                may_migrate=True,
            )
            for _ in range(4)
        ]
        gevent.joinall(opened, timeout=60, raise_error=True)
        other.execute('ROLLBACK')
    assert own.run(f'SELECT version FROM {name}.schema_version') == [(len(schema.MIGRATIONS),)]
    assert own.run(f'SELECT count(*) FROM {name}.functions') == [(1,)]


def test_tables_of_the_first_version_are_brought_up_to_date(
    own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    name = f'first_{uuid.uuid4().hex}'
    _make_version_1(own, name)
    schema.ensure(
        _address(own, name),
        calls.wait_in_greenlet,
        gevent.socket.getaddrinfo,
        may_migrate=True,
    )
    assert 'post_feedbeef' not in _functions_of(own, name)
    with open_store(f'{own.uri}?connect_timeout=60', tmp_path, name, timeout=60.0) as store:
        assert store.list('q') == ['free']
        assert store.list('q', include_claimed=True) == ['held', 'free']
        assert store.counts('q') == (1, 1)
        claim, _ = store.claims.get('q', 'f' * 32)
        assert claim['ttl'] == 600
        store.claims.delete('q', 'f' * 32, delay=60)
        assert store.list('q', include_delayed=True) == ['held', 'free']
        assert store.claims.create('q', {'ttl': 60, 'grace': 60})[1]
    assert own.run(f'SELECT version FROM {name}.schema_version') == [(len(schema.MIGRATIONS),)]
    [[options]] = own.run(
        f"SELECT reloptions FROM pg_class WHERE oid = '{name}.messages'::regclass"
    )
    assert 'vacuum_truncate=false' in options
    [[trigger]] = own.run(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'held_message_deleted'"
        f" AND tgrelid = '{name}.messages'::regclass"
    )
    assert 'zaqar_gevent.notes' in trigger


def _make_version_1(own: PostgresProcess, name: str) -> None:
    """Tables of the first version with two messages, one of them claimed, and an old function."""
    for statement in (
        f'CREATE SCHEMA {name}',
        f'CREATE TABLE {name}.schema_version (version int NOT NULL)',
        f'INSERT INTO {name}.schema_version VALUES (1)',
        f'CREATE TABLE {name}.functions (digest text PRIMARY KEY, created timestamptz NOT NULL)',
        schema._format('tables_1.sql', name),
        f"INSERT INTO {name}.queues VALUES ('shop', 'queue', 'q', '{{}}')",
        f"INSERT INTO {name}.spools (project, name) VALUES ('shop', 'q')",
        f"""INSERT INTO {name}.claims
            SELECT '{'f' * 32}', 1, extract(epoch FROM now()) + 600, 600""",
        f"""INSERT INTO {name}.messages
            (spool, position, created, expires, claim, ttl, encoding, returned, body)
            SELECT 1, i, extract(epoch FROM now()), extract(epoch FROM now()) + 3600,
                CASE i WHEN 1 THEN '{'f' * 32}'::uuid END, 3600, 0, i = 1,
                CASE i WHEN 1 THEN '"held"' ELSE '"free"' END::bytea
            FROM generate_series(1, 2) i""",
        f'INSERT INTO {name}.changes (spool, total, held) VALUES (1, 2, 1)',
        f"SELECT setval('{name}.batches', 100)",
        f"INSERT INTO {name}.functions VALUES ('feedbeef', now() - '8 days'::interval)",
        f"CREATE FUNCTION {name}.post_feedbeef() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ):
        own.run(statement)


def test_functions_that_no_server_uses_are_dropped(store: Store, own: PostgresProcess) -> None:
    name = _schema_of(store)
    for digest, used in (('00000001', '8 days'), ('00000002', '1 hour')):
        own.run(
            f"INSERT INTO {name}.functions VALUES ('{digest}', now(), now() - '{used}'::interval)"
        )
        for arguments in ('', 'a int'):
            own.run(
                f'CREATE FUNCTION {name}.post_{digest}({arguments}) RETURNS int '
                "LANGUAGE sql AS 'SELECT 1'"
            )
    # What others have there is left alone.
    own.run(f"CREATE FUNCTION {name}.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    before = _functions_of(own, name)
    upkeep.use_functions(store.data._storage.server)
    assert before - _functions_of(own, name) == {'post_00000001'}
    assert own.run(f"SELECT count(*) FROM {name}.functions WHERE digest LIKE '0000000%'") == [(1,)]
    queue = store.queue()
    assert store.post(queue, 'x')


def test_a_user_who_owns_nothing_can_serve(
    store: Store, own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    """Functions that it may not drop are left to their owner."""
    name = _schema_of(store)
    own.run('CREATE ROLE servant LOGIN')
    own.run(f'GRANT USAGE ON SCHEMA {name} TO servant')
    for kind in ('TABLES', 'SEQUENCES', 'FUNCTIONS'):
        own.run(f'GRANT ALL ON ALL {kind} IN SCHEMA {name} TO servant')
    own.run(f"INSERT INTO {name}.functions VALUES ('00000003', now() - '8 days'::interval)")
    own.run(f"CREATE FUNCTION {name}.post_00000003() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    uri = own.uri.replace(USER, 'servant')
    with open_store(f'{uri}?connect_timeout=60', tmp_path, name, timeout=60) as served:
        queue = served.queue()
        assert served.post(queue, 'x')
        assert 'post_00000003' in _functions_of(own, name)
    upkeep.use_functions(store.data._storage.server)
    assert 'post_00000003' not in _functions_of(own, name)


def _functions_of(own: PostgresProcess, name: str) -> set[str]:
    rows = own.run(f"SELECT proname FROM pg_proc WHERE pronamespace = '{name}'::regnamespace")
    return {row[0] for row in rows}


def test_nothing_is_changed_that_may_not_be(own: PostgresProcess) -> None:
    name = f'never_{uuid.uuid4().hex}'
    with pytest.raises(UnsuitableStore, match='zaqar-gevent db migrate'):
        schema.ensure(
            _address(own, name),
            calls.wait_in_greenlet,
            gevent.socket.getaddrinfo,
            may_migrate=False,
        )
    assert own.run(f"SELECT to_regnamespace('{name}')::text") == [(None,)]


def test_a_user_without_rights_is_told(own: PostgresProcess, tmp_path: pathlib.Path) -> None:
    own.run('CREATE ROLE guest LOGIN')
    with (
        pytest.raises(UnsuitableStore, match=r'permission denied for database.* mend itself'),
        open_store(own.uri.replace(USER, 'guest'), tmp_path),
    ):
        pass


def test_what_can_never_succeed_is_told_at_start(
    own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    base, _, _ = own.uri.rpartition('/')
    for uri, name, reason in (
        (f'{base}/no_such_database', 's', 'does not exist'),
        (own.uri.replace(USER, 'nobody_of_this_name'), 's', 'does not exist'),
        (f'{own.uri}?sslmode=require', 's', 'not support SSL'),
        (own.uri, 'pg_reserved', 'pg_reserved'),
    ):
        with (
            pytest.raises(UnsuitableStore, match=f'cannot be used.*{reason}.*mend itself'),
            open_store(uri, tmp_path, name),
        ):
            pass


def test_rights_that_are_taken_away_are_told(own: PostgresProcess, tmp_path: pathlib.Path) -> None:
    own.run('CREATE ROLE bereft LOGIN')
    own.run('GRANT ALL ON DATABASE postgres TO bereft')
    uri = f'{own.uri.replace(USER, "bereft")}?connect_timeout=60'
    with open_store(uri, tmp_path, timeout=60.0) as store:
        queue, name = store.queue(), _schema_of(store)
        own.run(f'ALTER SCHEMA {name} OWNER TO {USER}')
        own.run(f'REVOKE ALL ON SCHEMA {name} FROM bereft')
        for number in range(2):
            with pytest.raises(StoreUnavailable, match=f'permission denied for schema {name}'):
                store.post(queue, 'x', post_id=f'p{number}')
            # A connection that is new is told the same.
            own.run(END_CONNECTIONS.replace('(pid)', '(pid, 60000)'))
        own.run(f'GRANT ALL ON SCHEMA {name} TO bereft')
        store.post(queue, 'y', post_id='y')
        assert store.list(queue) == ['y']


def test_why_a_connection_was_ended_is_told(own: PostgresProcess) -> None:
    checker = schema.Checker(
        _address(own, 'any'), calls.wait_in_greenlet, gevent.socket.getaddrinfo
    )
    try:
        pid = checker._ask('SELECT pg_backend_pid()::text')
        checker._run("SET idle_in_transaction_session_timeout = '10ms'")
        checker._run('BEGIN')
        _wait_for(own, f'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}')
        with pytest.raises(StoreUnavailable, match='idle-in-transaction timeout'):
            checker._run('COMMIT')
    finally:
        checker.close()


@pytest.mark.parametrize('name', ["we'ird", '$body$ $$', 'a%s%', '{v} {schema}', 'x' * 63])
def test_any_name_will_do_for_a_schema(
    own: PostgresProcess, tmp_path: pathlib.Path, name: str
) -> None:
    # oslo.config has a meaning for one dollar.
    written = name.replace('$', '$$')
    with open_store(f'{own.uri}?connect_timeout=60', tmp_path, written, timeout=60) as store:
        queue = store.queue()
        store.post(queue, 'x', 'y')
        assert store.list(queue) == ['x', 'y']
        claim, found = store.claim(queue, limit=1)
        store.messages.delete(queue, found[0]['id'], claim=claim)
        assert store.counts(queue) == (0, 1)
        assert [one['body'] for one in store.messages.pop(queue, 1)] == ['y']
        store.queues.delete(queue)
        assert store.data._storage.server._habits.is_preparing
    own.run(
        psycopg.sql.SQL('DROP SCHEMA {} CASCADE').format(psycopg.sql.Identifier(name)).as_string()
    )


def _read_with_marker(store: Store, queue: str) -> tuple[list[Any], str]:
    results = store.messages.list(queue, echo=True, limit=100)
    return [one['body'] for one in next(results)], next(results)


def _roll_back(own: PostgresProcess, name: str, last: int) -> None:
    """Take away what was posted after a batch, as by an older state of the same tables."""
    own.run(f'DELETE FROM {name}.messages WHERE position > {(last + 1) * schema.BATCH - 1}')
    own.run(f"SELECT setval('{name}.batches', {last})")


@pytest.mark.parametrize('notices', ['when it connects', 'by itself'])
def test_markers_of_an_end_that_was_lost_under_a_running_server_are_refused(
    store: Store, own: PostgresProcess, notices: str
) -> None:
    queue, name = store.queue(), _schema_of(store)
    store.post(queue, 'old')
    _, kept = _read_with_marker(store, queue)
    [(last,)] = own.run(f'SELECT last_value FROM {name}.batches')
    for number in range(3):
        store.post(queue, f'lost {number}')
    found, lost = _read_with_marker(store, queue)
    assert len(found) == 4
    _roll_back(own, name, last)
    if notices == 'by itself':
        upkeep.look(store.data._storage.server)
    else:
        own.run(END_CONNECTIONS.replace('(pid)', '(pid, 60000)'))
    for number in range(6):
        store.post(queue, f'new {number}', post_id=f'p{number}')
        with pytest.raises(MarkerNotGiven):
            store.list(queue, marker=lost)
    assert store.list(queue, marker=kept) == [f'new {number}' for number in range(6)]


def test_a_database_that_is_restored_under_a_running_server_refuses_what_was_lost(
    own: PostgresProcess, tmp_path: pathlib.Path
) -> None:
    """Also by a server that has not seen what was lost."""
    base, _, _ = own.uri.rpartition('/')
    own.run('CREATE DATABASE live')
    name, of_live = 'restored', "FROM pg_stat_activity WHERE datname = 'live'"
    uris = [f'{base}/live?connect_timeout=60&application_name={one}' for one in ('one', 'other')]
    with (
        open_store(uris[0], tmp_path, name, timeout=60.0) as one,
        open_store(uris[1], tmp_path, name, timeout=60.0) as other,
    ):
        queue = one.queue()
        other.post(queue, 'old')
        _, kept = _read_with_marker(other, queue)
        own.run('ALTER DATABASE live WITH ALLOW_CONNECTIONS false')
        own.run(f'SELECT pg_terminate_backend(pid, 60000) {of_live}')
        own.run('CREATE DATABASE backup TEMPLATE live')
        own.run('ALTER DATABASE live WITH ALLOW_CONNECTIONS true')
        for number in range(3):
            one.post(queue, f'lost {number}')
        _, lost = _read_with_marker(one, queue)
        own.run('DROP DATABASE live WITH (FORCE)')
        own.run('ALTER DATABASE backup RENAME TO live')
        for number in range(6):
            other.post(queue, f'new {number}', post_id=f'p{number}')
            for store in (other, one):
                with pytest.raises(MarkerNotGiven):
                    store.list(queue, marker=lost)
        assert one.list(queue, marker=kept) == [f'new {number}' for number in range(6)]
    own.run('DROP DATABASE live WITH (FORCE)')


def test_statements_of_a_batch_that_was_undone_are_prepared_again(
    store: Store, own: PostgresProcess
) -> None:
    """The next batch is on its way already, and counts on them."""
    server = store.data._storage.server
    fails = schema.Statement(
        'fails', 'SELECT to_json(1 / (length(pg_advisory_xact_lock(77)::text)))'
    )
    works = schema.Statement('works', 'SELECT to_json(1)')
    with own.connect() as other:
        other.execute('SELECT pg_advisory_lock(77)')
        first = [
            gevent.spawn(attempt, lambda: server.query(kinds.READS, fails)),
            gevent.spawn(attempt, lambda: server.query(kinds.READS, works)),
        ]
        _wait_for(own, 'SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND objid = 77')
        second = gevent.spawn(attempt, lambda: server.query(kinds.READS, works))
        gevent.sleep(0.05)
        other.execute('SELECT pg_advisory_unlock(77)')
        gevent.joinall([*first, second], timeout=60, raise_error=True)
    assert isinstance(first[0].value[0], StoreUnavailable)
    assert first[1].value[0] == second.value[0] == [1]
    assert server._habits.is_preparing


def test_an_error_of_the_past_is_no_reason_for_a_loss(relay: Relay, tmp_path: pathlib.Path) -> None:
    with open_store(through(relay, 60), tmp_path, timeout=60.0) as store:
        queue = store.queue()
        server = store.data._storage.server
        fails = schema.Statement('fails', 'SELECT to_json(1 / 0)')
        store.list(queue)
        with pytest.raises(StoreUnavailable, match='division by zero'):
            server.query(kinds.READS, fails)
        relay.loses.set()
        never = schema.Statement('never', 'SELECT to_json(2)', is_repeatable=False)
        with pytest.raises(OutcomeUnknown) as caught:
            server.query(kinds.READS, never)
        assert 'division' not in str(caught.value)


def test_statements_that_are_lost_are_not_prepared_any_more(
    store: Store, own: PostgresProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = store.queue()
    store.post(queue, 'x')
    assert store.list(queue) == ['x']
    server = store.data._storage.server
    # As by something between that gives the session to others.
    server.call(kinds.READS, 'last_number')
    server._ask(kinds.READS, schema.Statement('drop', 'DEALLOCATE ALL'), ())
    assert store.list(queue) == ['x']
    assert server._habits.is_preparing is False
    assert store.post(queue, 'y')
    assert store.list(queue) == ['x', 'y']
    # For a while only.
    monkeypatch.setattr(calls, 'UNPREPARED_SECONDS', 0.0)
    server._habits.forget_statements()
    assert server._habits.is_preparing
    own.run(END_CONNECTIONS)
    assert store.list(queue) == ['x', 'y']


def test_a_scan_that_takes_too_long_is_broken_off(store: Store, own: PostgresProcess) -> None:
    server = store.data._storage.server
    server.scan_seconds = 0.2
    statement = schema.Statement('sleep', 'SELECT to_json(pg_sleep(30)::text)')
    began = time.monotonic()
    with pytest.raises(errors.ExceptionBase, match='broken off'):
        server.query(kinds.SCANS, statement)
    assert time.monotonic() - began < MOST_SECONDS
    assert store.queues.calculate_resource_count() == 0


def test_texts_that_cannot_be_stored_are_refused(store: Store) -> None:
    store.queue()
    with pytest.raises(ValidationFailed, match='NUL'):
        store.subscriptions.create('q0', 'http://a/\0', 300, {})


def test_what_no_name_has_can_be_looked_for(store: Store) -> None:
    store.queue()
    control = store.control
    assert list(next(store.queues.list(name='q\0'))) == []
    control.pools_controller.create('p', 100, 'sqlite:///p')
    assert [one['name'] for one in next(control.pools_controller.list(marker='\0'))] == ['p']
    assert list(next(control.pools_controller.list(marker='p\0'))) == []
    assert list(next(control.flavors_controller.list(project='x', marker='\0'))) == []


def test_many_claim_at_once_and_no_message_is_held_twice(store: Store) -> None:
    queue = store.queue()
    all_at_once(*[lambda: store.post(queue, *range(10))] * 30)
    claimed: list[str] = []

    def work() -> None:
        while found := store.claim(queue, limit=7)[1]:
            claimed.extend(one['id'] for one in found)

    all_at_once(*[work] * 20)
    assert len(claimed) == len(set(claimed)) == 300
    assert store.counts(queue) == (300, 0)


def test_a_forked_process_has_connections_of_its_own(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 'x')
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(BaseException):
            gevent.reinit()
            store.post(queue, 'y')
            status = 0 if store.list(queue) == ['x', 'y'] else 2
        os._exit(status)
    deadline = time.monotonic() + 60
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        gevent.sleep(0.02)
    assert status == 0
    assert store.post(queue, 'z')
    assert store.list(queue) == ['x', 'y', 'z']


def _schema_of(store: Store) -> str:
    name: str = store.data._storage.server.address.schema
    return name


def _address(own: PostgresProcess, name: str) -> Any:
    from zaqar_gevent.storage.postgresql import addresses

    return addresses.parse(own.uri, name)


def test_reads_do_not_walk_over_what_was_deleted_during_a_long_transaction(
    store: Store, own: PostgresProcess
) -> None:
    """As while a backup is made: what is deleted stays in the indices until that is over."""
    queue, name = store.queue(), _schema_of(store)
    server = store.data._storage.server
    with own.connect() as other:
        other.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')
        other.execute('SELECT count(*) FROM pg_class')
        for number in range(20):
            store.post(queue, *range(20))
            store.post(queue, *range(5), delay=100 + number)
            claim, found = store.claim(queue, limit=20)
            store.messages.bulk_delete(queue, [one['id'] for one in found], claim_ids=[claim])
        last = store.post(queue, *range(3))
        upkeep.sweep(server, 'shop', queue)
        now = time.time()
        # Each walks over no more entries of indices than over some that are alive.
        for call in (
            f"list_{{v}}('shop', '{queue}', {now}, 0, NULL, 10, NULL, true, false)",
            f"list_{{v}}('shop', '{queue}', {now}, 0, NULL, 10, NULL, false, false)",
            f"stats_{{v}}('shop', '{queue}', {now}, true)",
            f"""take_{{v}}('shop', '{queue}', {now}, 10, 0, 0, '{{{uuid.uuid4()}}}', 60, 60, false,
                NULL, 0)""",
            f'volume_{{v}}({now})',
            f'find_claimable_{{v}}({now}, \'[["shop", "{queue}"]]\')',
        ):
            with gevent.Timeout(60):
                # One server at a time collects, and what autovacuum does holds it up.
                while _count_read(own, name, call.replace('{v}', schema.digest())) > 60:
                    store.data._storage.gc()
        assert [one['id'] for one in store.claim(queue)[1]] == last
        assert store.counts(queue) == (3, 100)
        other.execute('ROLLBACK')


def _count_read(own: PostgresProcess, name: str, call: str) -> int:
    """The entries of messages' and changes' indices that a call reads; what it does is undone."""
    with own.connect() as connection:
        connection.execute('BEGIN')
        connection.execute(f'SELECT * FROM {name}.{call}'.encode())
        cursor = connection.execute(
            f"""SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) FROM pg_index i
                WHERE i.indrelid IN ('{name}.messages'::regclass, '{name}.changes'::regclass,
                    '{name}.claims'::regclass, '{name}.delayed'::regclass)""".encode()
        )
        [(count,)] = cursor.fetchall()
        connection.execute('ROLLBACK')
        return int(count)


def test_claims_of_one_transaction_do_not_walk_over_what_they_have_taken(
    store: Store, own: PostgresProcess
) -> None:
    """They are sent together, so none of them is told what the others took."""
    queue, name = store.queue(), _schema_of(store)
    posted = store.post(queue, *range(100))
    take = f"""SELECT document FROM {name}.take_{schema.digest()}(
        'shop', '{queue}', {time.time()}, 10, 1,
        0, ARRAY[gen_random_uuid()], 60, 60, false, NULL, 0)"""
    with own.connect() as connection:
        connection.execute('BEGIN')
        documents = [connection.execute(take.encode()).fetchall()[0][0] for _ in range(10)]
        read = connection.execute(
            f"SELECT pg_stat_get_xact_tuples_returned('{name}.messages_fresh'::regclass)".encode()
        ).fetchall()[0][0]
        connection.execute('COMMIT')
    found = [one['id'] for document in documents for one in pages.decode_page(document)]
    assert found == posted
    assert read < 150, read


def test_what_a_claim_has_passed_over_is_found_later(store: Store, own: PostgresProcess) -> None:
    """A message that another transaction had locked, while later ones were taken."""
    queue, name = store.queue(), _schema_of(store)
    first = store.post(queue, *range(4))[0]
    with own.connect() as other:
        other.execute('BEGIN')
        other.execute(
            f'SELECT FROM {name}.messages WHERE position = {int(first, 16)} FOR UPDATE'.encode()
        )
        assert [store.claim(queue, limit=1)[1][0]['body'] for _ in range(3)] == [1, 2, 3]
        other.execute('ROLLBACK')
    with gevent.Timeout(60):
        while not (found := store.claim(queue, limit=1)[1]):
            gevent.sleep(0.02)
    assert [one['id'] for one in found] == [first]


def test_messages_that_were_added_below_where_reads_begin_are_found(
    store: Store, own: PostgresProcess
) -> None:
    """By a server whose clock is behind, or by a dump that has been restored elsewhere."""
    queue, name = store.queue(), _schema_of(store)
    store.post(queue, 'x', 'y')
    assert [one['body'] for one in store.messages.pop(queue, 1)] == ['x']
    store.claim(queue)
    store.data._storage.gc()
    # Numbers of transactions begin anew there.
    own.run(f"UPDATE {name}.floors SET place = place + (1 << 40) WHERE kind = 'c'")
    later = time.time() * 1e6
    own.run(f"UPDATE {name}.floors SET place = {later:.0f} WHERE kind IN ('d', 'e')")
    own.run(f'UPDATE {name}.claims SET expires = extract(epoch FROM now()) - 5')
    store.post(queue, 'z')
    with gevent.Timeout(60):
        while store.counts(queue) != (0, 2):
            store.data._storage.gc()
            gevent.sleep(0.02)
    assert [one['body'] for one in store.claim(queue)[1]] == ['y', 'z']


@pytest.mark.parametrize('mode', [1, 2, 3], ids=['ordered', 'fair', 'both'])
def test_claims_of_groups_that_are_sent_together_take_what_they_would_by_themselves(
    store: Store, own: PostgresProcess, mode: int
) -> None:
    for seed in range(2):
        chance = random.Random(seed)
        queue, now = _queue_of_groups(store, chance, mode), time.time()
        size, limit = chance.choice((2, 5, 16)), chance.choice((1, 3, 10))
        claims = _Claims(own, _schema_of(store), queue, mode, now)
        apart = claims.make([1] * (size + 10), limit)
        together = claims.make([size, *[1] * 10], limit)
        assert together == apart, (seed, size, limit)


def _queue_of_groups(store: Store, chance: random.Random, mode: int) -> str:
    """A queue whose groups have been claimed from, in part."""
    queue = store.queue(_ordered_groups=bool(mode & 1), _fair_groups=mode >= 2)
    names = chance.choice((2, 7, 40, 300))
    new: list[dict[str, Any]] = []
    while len(new) < 120:
        group = chance.randrange(names)
        one = {'ttl': 300, 'body': 0, **({'group': f'g{group}'} if group else {})}
        new += [one] * chance.choice((1, 1, 1, 3))
    for part in (new[:60], new[60:]):
        store.messages.post(queue, part, None)
        for _ in range(chance.randrange(1, 6)):
            claim, found = store.claim(queue, limit=chance.randrange(1, 8))
            settle = chance.choice(('keep', 'delete', 'some', 'release', 'delay'))
            if settle in ('delete', 'some') and found:
                ids = [one['id'] for one in found][: None if settle == 'delete' else 2]
                store.messages.bulk_delete(queue, ids, claim_ids=[claim])
            elif settle in ('release', 'delay') and found:
                store.claims.delete(queue, claim, delay=60 if settle == 'delay' else 0)
    return queue


class _Claims:
    """Claims of one queue, made by its function in a transaction that is undone."""

    def __init__(self, own: PostgresProcess, name: str, queue: str, mode: int, now: float) -> None:
        self._own = own
        self._call = f"""SELECT facts, document FROM {name}.take_groups_{schema.digest()}(
            'shop', '{queue}', {now}, %s, 0, %s::uuid[], 60, 60, false, NULL, {mode}, true)"""

    def make(self, sizes: list[int], limit: int) -> list[list[str]]:
        """Make so many claims at a time; which messages each is given."""
        with self._own.connect() as connection:
            connection.execute('BEGIN')
            found = [ids for size in sizes for ids in self._make_together(connection, size, limit)]
            connection.execute('ROLLBACK')
        return found

    def _make_together(self, connection: Any, size: int, limit: int) -> list[list[str]]:
        found: list[list[str]] = []
        while len(found) < size:
            tokens = [str(uuid.uuid4()) for _ in range(size - len(found))]
            rows = connection.execute(self._call.encode(), (limit, tokens)).fetchall()
            rows += rows[-1:] * (len(tokens) - len(rows))
            pages_ = [document for (state, *_), document in rows if state == 'done']
            found += [[one['id'] for one in pages.decode_page(page)] for page in pages_]
        return found
