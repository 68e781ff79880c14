"""Clients that have the server wait, poll or remember for them, and at which number it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.callers import Identity, RestCaller, new_identity
from tests.faults.client import COMPACT, DEFAULT
from tests.faults.memory import MB, settled
from tests.functional.test_consumers import Worker
from tests.functional.test_push import Subscriber, eventually, post
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

CONSUMERS = 200
WAITED = 1500
FEW = """
[drivers:transport:gevent]
max_consumers_per_connection = 3
max_consumers_per_project = 5
max_subscriptions_per_connection = 3
max_subscriptions_per_project = 5
max_subscriptions_per_queue = 4
max_waits_per_project = 2
"""


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server as it is unless told otherwise."""
    with ServerProcess(tmp_path_factory.mktemp('server')) as process:
        yield process


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that allows few of everything."""
    with ServerProcess(tmp_path_factory.mktemp('small'), config=FEW) as process:
        yield process


@pytest.fixture
def identity() -> Identity:
    return new_identity()


def refusal(client: Subscriber, action: str, **body: Any) -> str:
    """Why a request is refused with 429."""
    status, answer = client.call(action, **body)
    assert status == 429, answer
    return str(answer)


def test_one_consumer_too_many_of_a_connection_is_refused(
    small: ServerProcess, identity: Identity
) -> None:
    with Worker(small.port, COMPACT, identity=identity) as client:
        for number in range(3):
            client.consume(f'queue-{number}')
        assert 'max_consumers_per_connection' in refusal(
            client, 'queue_consume', queue_name='queue-3'
        )
        stopped = client.call('consumer_stop', consumer_id=client.consumer_id)
        assert stopped[0] == 204
        client.consume('queue-3')


def test_one_consumer_too_many_of_a_project_is_refused_until_others_are_gone(
    small: ServerProcess, identity: Identity
) -> None:
    with Worker(small.port, COMPACT, identity=identity) as client:
        with Worker(small.port, COMPACT, identity=identity) as other:
            for each, count in ((client, 3), (other, 2)):
                for number in range(count):
                    each.consume(f'queue-{number}')
            reason = refusal(other, 'queue_consume', queue_name='queue-2')
            assert 'max_consumers_per_project' in reason
            with Worker(small.port, COMPACT, identity=new_identity()) as stranger:
                stranger.consume('queue-0')
        client.call('consumer_stop', consumer_id=client.consumer_id)
        eventually(lambda: client.call('queue_consume', queue_name='q')[0] == 201)


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_one_subscription_too_many_of_a_connection_or_project_is_refused(
    small: ServerProcess, identity: Identity, dialect: Any
) -> None:
    with (
        Subscriber(small.port, dialect, identity=identity) as client,
        Subscriber(small.port, dialect, identity=identity) as other,
    ):
        ids = [client.subscribe(f'queue-{number}') for number in range(3)]
        reason = refusal(client, 'subscription_create', queue_name='queue-3')
        assert 'max_subscriptions_per_connection' in reason
        for number in range(2):
            other.subscribe(f'queue-{number}')
        reason = refusal(other, 'subscription_create', queue_name='queue-2')
        assert 'max_subscriptions_per_project' in reason
        gone = {'queue_name': 'queue-0', 'subscription_id': ids[0]}
        assert client.call('subscription_delete', **gone)[0] == 204
        other.subscribe('queue-2')


def test_one_subscription_too_many_of_a_queue_is_refused(
    small: ServerProcess, identity: Identity
) -> None:
    rest = RestCaller(small.url, identity=identity)
    with Subscriber(small.port, COMPACT, identity=identity) as client:
        client.subscribe('orders')
        target = {'queue_name': 'orders', 'ttl': 300, 'options': {}}
        for number in range(3):
            created = rest.call(
                'subscription_create', subscriber=f'http://192.0.2.1/{number}', **target
            )
            assert created.status == 201
        refused = rest.call('subscription_create', subscriber='http://192.0.2.1/x', **target)
        assert refused.status == 429
        assert 'max_subscriptions_per_queue' in str(refused.body)


@contextlib.contextmanager
def waiting(server: ServerProcess, identity: Identity, count: int) -> Iterator[None]:
    """Have so many lists wait over one connection."""
    with Subscriber(server.port, COMPACT, identity=identity) as client:
        for number in range(count):
            client.send(client.request('message_list', queue_name=f'queue-{number}', wait=20))
            # Requests are begun in order.
            assert client.call('ping_node')[0] == 204
        yield


def test_one_request_too_many_that_waits_is_refused_over_each_transport(
    small: ServerProcess, identity: Identity
) -> None:
    rest = RestCaller(small.url, identity=identity)

    def is_refused(action: str, **more: Any) -> bool:
        answer = rest.call(action, queue_name='orders', wait=0.1, **more)
        return bool(answer.status == 429 and 'max_waits_per_project' in str(answer.body))

    with waiting(small, identity, 2), Subscriber(small.port, COMPACT, identity=identity) as client:
        assert is_refused('message_list')
        assert is_refused('claim_create', ttl=60, grace=60)
        assert 'max_waits' in refusal(client, 'message_list', queue_name='orders', wait=1)
        # What need not wait is served, and others are.
        assert rest.call('message_list', queue_name='orders').status in (200, 204)
        post(rest, 'here', queue_name='orders')
        listed = rest.call('message_list', queue_name='orders', wait=5, echo=True)
        assert listed.status == 200
        other = RestCaller(small.url, identity=new_identity())
        assert other.call('message_list', queue_name='orders', wait=0.1).status in (200, 204)
    eventually(lambda: not is_refused('message_list'))


def test_idle_consumers_cost_little(server: ServerProcess) -> None:
    """They are looked for together: of one queue, and of many."""
    with contextlib.ExitStack() as stack:
        for queue in ('same', None):
            client = stack.enter_context(Worker(server.port, COMPACT, identity=new_identity()))
            for number in range(CONSUMERS):
                client.consume(queue or f'queue-{number}')
        time.sleep(1.5)
        process = psutil.Process(server.pid)
        used = _seconds_of(process)
        began = time.monotonic()
        time.sleep(3)
        share = (_seconds_of(process) - used) / (time.monotonic() - began)
    print(f'{2 * CONSUMERS} idle consumers take {share:.3f} of a core')
    assert share < 0.1


def _seconds_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def test_each_of_many_idle_consumers_of_a_queue_gets_its_message(
    server: ServerProcess, identity: Identity
) -> None:
    """One after the other is woken, as long as there is something."""
    rest = RestCaller(server.url, identity=identity)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(server.port, COMPACT, identity=identity)) for _ in range(10)
        ]
        for worker in workers:
            worker.consume('orders')
        time.sleep(0.3)
        began = time.monotonic()
        post(rest, *range(10))
        bodies = sorted(worker.messages(1)[0]['body'] for worker in workers)
        print(f'all have theirs after {1000 * (time.monotonic() - began):.0f} ms')
    assert bodies == list(range(10))


def test_claims_that_wait_are_woken_one_after_the_other_and_all_are_served(
    server: ServerProcess, identity: Identity
) -> None:
    rest = RestCaller(server.url, identity=identity)
    claimed: list[Any] = []

    def claim() -> None:
        caller = RestCaller(server.url, identity=identity)
        target = {'queue_name': 'orders', 'ttl': 60, 'grace': 60, 'limit': 1, 'wait': 20}
        claimed.append(caller.call('claim_create', **target).body['messages'][0]['body'])

    threads = [threading.Thread(target=claim) for _ in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    watch = Stopwatch(server.pid)
    post(rest, *range(10))
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(10))
    assert watch.seconds() < 10


def test_queues_that_were_waited_for_are_forgotten(server: ServerProcess) -> None:
    """Invented ones, too."""
    identity = new_identity()
    with Subscriber(server.port, COMPACT, identity=identity) as client:

        def wait_for(numbers: range) -> None:
            for number in numbers:
                name = f'invented-{number}'
                status, _ = client.call('message_list', queue_name=name, wait=0.001)
                assert status in (200, 204)

        # What is kept of some is kept once.
        wait_for(range(WAITED))
        before = settled(server.pid)
        wait_for(range(WAITED, 3 * WAITED))
    growth = settled(server.pid) - before
    print(f'{2 * WAITED} more queues waited for leave {growth / MB:.1f} MB')
    assert growth < 3 * MB
