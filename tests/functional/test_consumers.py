"""Connections that work on a queue: each message is leased to one of them at a time."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.callers import Identity, RestCaller, new_identity
from tests.faults.client import COMPACT, Client, Dialect
from tests.functional.test_push import (
    AWKWARD,
    COMPACTS,
    PATIENCE_SECONDS,
    Hasty,
    Subscriber,
    eventually,
    post,
)
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

ROOT = pathlib.Path(__file__).parents[2]
SOON = 5.0
"""Seconds within which somebody else has what was given back."""


class Worker(Subscriber):
    """A client that consumes one queue.

    consumer_id: what it was given.
    """

    consumer_id = ''

    def consume(self, queue_name: str = 'orders', **more: Any) -> Worker:
        status, body = self.call('queue_consume', queue_name=queue_name, **more)
        assert status == 201, body
        self.consumer_id = body['consumer_id']
        return self

    def messages(self, count: int) -> list[Any]:
        """The next messages."""
        return [self.push()['message'] for _ in range(count)]

    def settle(self, action: str, *messages: Any) -> int:
        """Settle messages; the status of the answer."""
        ids = [message['id'] for message in messages]
        status, _ = self.call(action, consumer_id=self.consumer_id, message_ids=ids)
        return int(status)

    def ack(self, *messages: Any) -> None:
        assert self.settle('message_ack', *messages) == 204

    def release(self, *messages: Any) -> None:
        assert self.settle('message_release', *messages) == 204


Connect = Callable[..., Worker]


@pytest.fixture
def identity() -> Identity:
    """A client of a project of its own."""
    return new_identity()


@pytest.fixture
def worker_of(server: ServerProcess, identity: Identity) -> Iterator[Connect]:
    """Connects workers of one project to the shared server, until the test is over."""
    with contextlib.ExitStack() as stack:

        def connect_one(dialect: Dialect = COMPACT) -> Worker:
            return stack.enter_context(Worker(server.port, dialect, identity=identity))

        yield connect_one


@pytest.fixture(params=COMPACTS, ids=str)
def worker(request: pytest.FixtureRequest, worker_of: Connect) -> Worker:
    """A worker in either encoding."""
    return worker_of(request.param)


@pytest.fixture
def rest(server: ServerProcess, identity: Identity) -> Iterator[RestCaller]:
    """A client of the same project over REST."""
    caller = RestCaller(server.url, identity=identity)
    yield caller
    caller.close()


def bodies_of(messages: Sequence[Any]) -> list[Any]:
    return [message['body'] for message in messages]


def stats(rest: RestCaller, queue_name: str = 'orders') -> tuple[int, int]:
    """How many messages of a queue are free, and how many are claimed."""
    counted = rest.call('queue_get_stats', queue_name=queue_name).body['messages']
    return counted['free'], counted['claimed']


def test_a_message_is_claimed_and_pushed(worker: Worker, rest: RestCaller) -> None:
    worker.consume(ttl=120, grace=60)
    [message_id] = post(rest, {'sku': 42})
    push = worker.push()
    claim_id = push['message']['claim_id']
    assert push == {
        'push': 'message',
        'consumer_id': worker.consumer_id,
        'queue_name': 'orders',
        'message': {
            'id': message_id,
            'claim_id': claim_id,
            'ttl': 300,
            'age': 0,
            'body': {'sku': 42},
            'claim_count': 0,
        },
    }
    claim = rest.call('claim_get', queue_name='orders', claim_id=claim_id).body
    assert (claim['ttl'], [message['id'] for message in claim['messages']]) == (120, [message_id])


def test_no_more_than_the_credit_is_unsettled(worker: Worker, rest: RestCaller) -> None:
    post(rest, *range(20))
    worker.consume(credit=5)
    held = worker.messages(5)
    assert bodies_of(held) == list(range(5))
    assert worker.has_nothing_more()
    assert stats(rest) == (15, 5)
    worker.ack(*held[:2])
    assert bodies_of(worker.messages(2)) == [5, 6]
    assert worker.has_nothing_more()
    assert stats(rest) == (13, 5)


def test_the_credit_is_one_unless_given(worker: Worker, rest: RestCaller) -> None:
    post(rest, *range(5))
    worker.consume()
    for number in range(5):
        [message] = worker.messages(1)
        assert message['body'] == number
        assert worker.has_nothing_more()
        worker.ack(message)
    assert stats(rest) == (0, 0)


def test_what_is_acknowledged_is_deleted(worker: Worker, rest: RestCaller) -> None:
    ids = post(rest, *range(50))
    worker.consume(credit=50)
    held = worker.messages(50)
    worker.ack(*held[:20])
    assert stats(rest) == (0, 30)
    gone = rest.call('message_get', queue_name='orders', message_id=ids[0])
    assert gone.status == 404
    worker.ack(*held[20:])
    assert stats(rest) == (0, 0)


def test_what_is_released_is_somebody_elses(
    server: ServerProcess, worker: Worker, worker_of: Connect, rest: RestCaller
) -> None:
    post(rest, *range(10))
    worker.consume(credit=10)
    held = worker.messages(10)
    other = worker_of().consume(credit=10)
    assert other.has_nothing_more()
    released = worker.call('consumer_stop', consumer_id=worker.consumer_id)
    assert released.status == 204
    watch = Stopwatch(server.pid)
    assert sorted(bodies_of(other.messages(10))) == list(range(10))
    assert watch.seconds() < SOON
    assert worker.settle('message_ack', held[0]) == 404
    assert worker.call('consumer_stop', consumer_id=worker.consumer_id).status == 404


def test_what_was_being_claimed_is_free_once_a_stop_is_answered(
    worker: Worker, rest: RestCaller
) -> None:
    post(rest, *range(20))
    for _ in range(30):
        worker.consume(credit=20)
        assert worker.call('consumer_stop', consumer_id=worker.consumer_id).status == 204
        assert stats(rest) == (20, 0)


def test_what_is_released_comes_again(worker: Worker, rest: RestCaller) -> None:
    post(rest, 'again')
    worker.consume()
    [first] = worker.messages(1)
    worker.release(first)
    [second] = worker.messages(1)
    assert (second['id'], second['body']) == (first['id'], 'again')
    assert second['claim_id'] != first['claim_id']


def test_a_message_that_was_taken_away_takes_no_others_with_it(
    worker: Worker, rest: RestCaller
) -> None:
    """Though one claim may hold several of a consumer's messages."""
    post(rest, *range(4))
    worker.consume(credit=4)
    held = worker.messages(4)
    lost = {'message_id': held[1]['id'], 'claim_id': held[1]['claim_id']}
    answer = rest.call('message_release_many', queue_name='orders', entries=[lost])
    assert [one['status'] for one in answer.body['outcomes']] == [204]
    settled = {'consumer_id': worker.consumer_id, 'message_ids': [one['id'] for one in held]}
    refused = worker.call('message_ack', **settled)
    assert (refused.status, refused.body['message_ids']) == (404, [held[1]['id']])
    [again] = worker.messages(1)
    assert again['id'] == held[1]['id']
    assert stats(rest) == (0, 1)
    worker.ack(again)
    assert stats(rest) == (0, 0)


def test_only_what_is_leased_to_a_consumer_of_the_connection_is_settled(
    worker: Worker, worker_of: Connect, rest: RestCaller
) -> None:
    [free, *_] = post(rest, *range(10))
    worker.consume(credit=2)
    one, two = worker.messages(2)
    other = worker_of().consume(credit=1)
    [theirs] = other.messages(1)
    unknown = {'id': '7' * 16}
    for wrong in (theirs, unknown, {'id': ''}, {'id': 'x' * 1000}):
        for action in ('message_ack', 'message_release'):
            assert worker.settle(action, wrong) == 404
    assert stats(rest) == (7, 3)
    for consumer_id in (other.consumer_id, 'x', ''):
        for action in ('message_ack', 'message_release'):
            answer = worker.call(action, consumer_id=consumer_id, message_ids=[theirs['id']])
            assert answer.status == 404
        assert worker.call('consumer_stop', consumer_id=consumer_id).status == 404
    worker.ack(one)
    assert worker.settle('message_ack', one) == 404
    worker.ack(two)
    assert rest.call('message_get', queue_name='orders', message_id=free).status == 404


@pytest.mark.parametrize('action', ['message_ack', 'message_release', 'message_reject'])
def test_what_is_leased_is_settled_though_others_of_the_request_are_not(
    worker_of: Connect, rest: RestCaller, action: str
) -> None:
    metadata = {'_dead_letter_queue': 'failed'}
    rest.call('queue_create', queue_name='failed')
    rest.call('queue_create', queue_name='orders', metadata=metadata)
    post(rest, *range(3))
    unknown = '7' * 16
    for dialect in COMPACTS:
        worker = worker_of(dialect).consume(credit=1)
        [held] = worker.messages(1)
        ids = [unknown, held['id'], unknown]
        answer = worker.call(action, consumer_id=worker.consumer_id, message_ids=ids)
        assert (answer.status, answer.body['message_ids']) == (404, [unknown])
        if action == 'message_release':
            [again] = worker.messages(1)
            assert again['id'] == held['id']
        else:
            assert worker.settle(action, held) == 404
        worker.call('consumer_stop', consumer_id=worker.consumer_id)


def test_one_connection_consumes_several_queues(worker: Worker, rest: RestCaller) -> None:
    ids = {name: worker.consume(name, credit=3).consumer_id for name in ('a', 'b')}
    assert len(set(ids.values())) == 2
    for number in range(3):
        for name in ids:
            post(rest, number, queue_name=name)
    pushes = [worker.push() for _ in range(6)]
    for name, consumer_id in ids.items():
        mine = [push for push in pushes if push['queue_name'] == name]
        assert {push['consumer_id'] for push in mine} == {consumer_id}
        assert bodies_of([push['message'] for push in mine]) == [0, 1, 2]
        held = [push['message']['id'] for push in mine]
        settled = worker.call('message_ack', consumer_id=consumer_id, message_ids=held)
        assert settled.status == 204
        assert stats(rest, name) == (0, 0)


def test_bodies_of_an_encrypted_queue_are_pushed_as_they_were_posted(
    worker: Worker, rest: RestCaller
) -> None:
    rest.call('queue_create', queue_name='orders', metadata={'_enable_encrypt_messages': True})
    worker.consume(credit=len(AWKWARD))
    post(rest, *AWKWARD)
    assert bodies_of(worker.messages(len(AWKWARD))) == AWKWARD


@pytest.mark.parametrize('binary', [False, True], ids=['json', 'msgpack'])
def test_the_default_envelope_has_no_consumers(server: ServerProcess, binary: bool) -> None:
    with Subscriber(server.port, Dialect(None, binary)) as client:
        refused = client.call('queue_consume', queue_name='orders')
        assert refused.status == 400
        assert 'zaqar.v2' in refused.body['error']
        settled = client.call('message_ack', consumer_id='x', message_ids=[])
        assert settled.status == 404
        assert client.call('ping_node').status == 204


WRONG: list[dict[str, Any]] = [
    {'credit': 0},
    {'credit': -1},
    {'credit': 1001},
    {'credit': 'x'},
    {'credit': 1.5},
    {'ttl': 59},
    {'ttl': 43201},
    {'grace': 59},
    {'ttl': 'x'},
    {'queue_name': 'a b'},
    {'queue_name': 7},
]


@pytest.mark.parametrize('wrong', WRONG, ids=str)
def test_a_consumer_that_cannot_be_meant_is_refused(worker: Worker, wrong: dict[str, Any]) -> None:
    assert worker.call('queue_consume', **{'queue_name': 'orders', **wrong}).status == 400


def test_who_may_not_claim_may_not_consume(tmp_path: pathlib.Path) -> None:
    policy = tmp_path / 'policy.yaml'
    policy.write_text('"claims:create": "role:insider"\n')
    config = f'[oslo_policy]\npolicy_file = {policy}\n'
    with ServerProcess(tmp_path, config=config) as server, Worker(server.port) as worker:
        assert worker.call('queue_consume', queue_name='orders').status == 403


def abandon(client: Client) -> None:
    """Close the socket with something unread, or not."""
    client.socket.close()


@pytest.mark.parametrize(
    'end', [Client.close, Subscriber.reset, abandon], ids=['closed', 'reset', 'abandoned']
)
def test_what_a_lost_connection_held_is_somebody_elses(
    server: ServerProcess,
    worker_of: Connect,
    rest: RestCaller,
    end: Callable[[Worker], object],
) -> None:
    post(rest, *range(100))
    lost = worker_of().consume(credit=100)
    assert len(lost.messages(100)) == 100
    other = worker_of().consume(credit=100)
    assert other.has_nothing_more()
    watch = Stopwatch(server.pid)
    end(lost)
    assert sorted(bodies_of(other.messages(100))) == list(range(100))
    assert watch.seconds() < SOON


def test_what_a_killed_client_held_is_somebody_elses(
    server: ServerProcess, worker_of: Connect, rest: RestCaller
) -> None:
    post(rest, *range(100))
    command = [sys.executable, '-m', __name__, str(server.port), *rest.identity]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == 'holding 100\n'
    other = worker_of().consume(credit=100)
    assert other.has_nothing_more()
    watch = Stopwatch(server.pid)
    process.kill()
    assert sorted(bodies_of(other.messages(100))) == list(range(100))
    took = watch.seconds()
    process.communicate()
    print(f'100 messages of a killed client after {1000 * took:.0f} ms')
    assert took < SOON


def test_leases_are_renewed_while_the_connection_lasts_and_no_longer(
    tmp_path: pathlib.Path,
) -> None:
    ttl = 8
    with (
        Hasty(tmp_path) as server,
        Worker(server.port) as worker,
        Worker(server.port, identity=worker.identity) as other,
    ):
        rest = RestCaller(server.url, identity=worker.identity)
        post(rest, *range(20))
        worker.consume(credit=20, ttl=ttl)
        held = worker.messages(20)
        other.consume(credit=20)
        began = time.monotonic()
        while time.monotonic() < began + 1.1 * ttl:
            for message in (held[0], held[-1]):
                target = {'queue_name': 'orders', 'claim_id': message['claim_id']}
                claim = rest.call('claim_get', **target)
                assert claim.status == 200
                assert claim.body['age'] < ttl
            assert other.has_nothing_more()
            time.sleep(0.2)
        worker.ack(*held[:10])
        watch = Stopwatch(server.pid)
        worker.reset()
        assert sorted(bodies_of(other.messages(10))) == list(range(10, 20))
        assert watch.seconds() < ttl / 4


def test_what_becomes_free_by_itself_is_found(tmp_path: pathlib.Path) -> None:
    """The end of somebody's claim is no news to anybody; that of a delay is."""
    with Hasty(tmp_path) as server, Worker(server.port) as worker:
        rest = RestCaller(server.url, identity=worker.identity)
        rest.call('queue_create', queue_name='later', metadata={'_default_message_delay': 1})
        worker.consume()
        worker.consume('later')
        watch = Stopwatch(server.pid)
        began = time.monotonic()
        post(rest, 'delayed', queue_name='later')
        push = worker.push()
        assert (push['queue_name'], push['message']['body']) == ('later', 'delayed')
        assert time.monotonic() - began > 0.9
        assert watch.seconds() < SOON

        post(rest, 'claimed', queue_name='other')
        claim = {'queue_name': 'other', 'ttl': 1, 'grace': 60}
        watch = Stopwatch(server.pid)
        assert rest.call('claim_create', **claim).status == 201
        worker.consume('other')
        assert worker.messages(1)[0]['body'] == 'claimed'
        assert watch.seconds() < 2 * SOON


def test_a_consumer_waits_for_a_queue_that_does_not_exist(
    server: ServerProcess, worker: Worker, rest: RestCaller
) -> None:
    worker.consume('nowhere')
    assert rest.call('queue_list').body['queues'] == []
    waits = []
    for number in range(10):
        watch = Stopwatch(server.pid)
        post(rest, number, queue_name='nowhere')
        [message] = worker.messages(1)
        waits.append(watch.seconds())
        assert message['body'] == number
        worker.ack(message)
    assert sorted(waits)[5] < 0.1


def test_a_message_given_back_too_often_is_a_dead_letter(worker: Worker, rest: RestCaller) -> None:
    metadata = {'_max_claim_count': 3, '_dead_letter_queue': 'dead'}
    rest.call('queue_create', queue_name='orders', metadata=metadata)
    rest.call('queue_create', queue_name='dead')
    post(rest, 'poison')
    worker.consume()
    for _ in range(3):
        [message] = worker.messages(1)
        assert message['body'] == 'poison'
        worker.release(message)
    eventually(lambda: stats(rest, 'dead') == (1, 0))
    post(rest, 'good')
    assert worker.messages(1)[0]['body'] == 'good'


class Crew:
    """Workers and claims over REST that share the work of a queue.

    done: bodies, as they were done with.
    """

    def __init__(self, server: ServerProcess, identity: Identity, total: int) -> None:
        self._server = server
        self._identity = identity
        self._total = total
        self._lock = threading.Lock()
        self.done: list[Any] = []

    def run(self) -> None:
        """Work until all is done."""
        jobs = [self._consume] * 3 + [self._claim] * 2
        threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    def _note(self, messages: Sequence[Any]) -> None:
        with self._lock:
            self.done += bodies_of(messages)

    def _consume(self) -> None:
        """Acknowledge some, release some, and leave now and then without a word."""
        number = 0
        while len(self.done) < self._total:
            with Worker(self._server.port, identity=self._identity) as worker:
                worker.consume(credit=10)
                worker.socket.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    for _ in range(40):
                        number += 1
                        [message] = worker.messages(1)
                        if number % 7:
                            worker.ack(message)
                            self._note([message])
                        else:
                            worker.release(message)
                worker.reset()

    def _claim(self) -> None:
        caller = RestCaller(self._server.url, identity=self._identity)
        while len(self.done) < self._total:
            claim = caller.call('claim_create', queue_name='orders', limit=5, wait=0.2)
            for message in (claim.body or {}).get('messages', ()):
                target = {'message_id': message['id'], 'claim_id': message['claim_id']}
                deleted = caller.call('message_delete', queue_name='orders', **target)
                assert deleted.status == 204
                self._note([message])
        caller.close()


def test_consumers_and_claims_never_work_on_a_message_twice(
    server: ServerProcess, rest: RestCaller
) -> None:
    total = 600
    crew = Crew(server, rest.identity, total)
    for start in range(0, total, 20):
        post(rest, *range(start, start + 20))
    began = time.monotonic()
    crew.run()
    print(f'{total} messages of five workers in {time.monotonic() - began:.1f} s')
    assert sorted(crew.done) == list(range(total))
    eventually(lambda: stats(rest) == (0, 0))


def test_a_consumer_keeps_up_with_what_is_posted(worker: Worker, rest: RestCaller) -> None:
    total, credit = 1_000, 100
    for start in range(0, total, 20):
        post(rest, *range(start, start + 20))
    began = time.monotonic()
    worker.consume(credit=credit)
    done: list[Any] = []
    while len(done) < total:
        batch = worker.messages(credit // 4)
        worker.ack(*batch)
        done += bodies_of(batch)
    print(f'{total / (time.monotonic() - began):.0f} messages a second')
    assert done == list(range(total))


@pytest.mark.parametrize('is_busy', [False, True], ids=['idle', 'busy'])
def test_a_server_that_stops_gives_back_what_its_consumers_hold(
    tmp_path: pathlib.Path, is_busy: bool
) -> None:
    """Also what they were about to be given."""
    config = '[drivers:transport:gevent]\nclose_timeout = 0.5\n'
    identity = new_identity()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path, config=config))
        rest = RestCaller(server.url, identity=identity)
        for start in range(0, 1_000, 20):
            post(rest, *range(start, start + 20))
        workers = [
            stack.enter_context(Worker(server.port, identity=identity)).consume(credit=credit)
            for credit in ([1_000] * 3 if is_busy else [10, 100])
        ]
        workers[0].messages(10)
        if not is_busy:
            workers[1].messages(100)
            assert stats(rest) == (890, 110)
        assert server.stop() == 0
    with ServerProcess(tmp_path) as server:
        assert stats(RestCaller(server.url, identity=identity)) == (1_000, 0)


def _main() -> None:
    """Hold a hundred messages until killed."""
    port, project_id, client_id = sys.argv[1:]
    worker = Worker(int(port), identity=Identity(project_id, client_id)).consume(credit=100)
    held = worker.messages(100)
    print(f'holding {len(held)}', flush=True)
    time.sleep(PATIENCE_SECONDS)


if __name__ == '__main__':
    _main()
