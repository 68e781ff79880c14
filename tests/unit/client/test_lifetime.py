"""Clients in forked processes, and clients that are dropped without having been closed."""

from __future__ import annotations

import gc
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client.waiting import wait_until
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, ClientForked, Queue
from zaqar_gevent.client.fallback import Transport

DROPPED = 20
AT_ONCE_SECONDS = 3.5
SECONDS = 10.0

pytestmark = pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork:DeprecationWarning')


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('server')) as process:
        yield process


def make_client(server: ServerProcess, transport: Transport = 'websocket') -> Client:
    return Client(server.url, project=uuid.uuid4().hex, transport=transport, timeout=60)


@pytest.fixture(params=['websocket', 'rest'])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Client]:
    with make_client(server, request.param) as client:
        client.ping()
        yield client


def in_a_fork(job: Callable[[], object]) -> tuple[str, float]:
    """What a job returns or raises in a forked process, and after how many seconds."""
    reading, writing = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        try:
            said = repr(job())
        except BaseException as error:
            said = f'{type(error).__name__}: {error}'
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return said, time.monotonic() - began


def assert_refused(job: Callable[[], object]) -> None:
    said, seconds = in_a_fork(job)
    assert said.startswith('ClientForked: The client was made before this process was forked')
    assert seconds < AT_ONCE_SECONDS


def test_calls_are_refused_at_once_in_a_forked_process(client: Client) -> None:
    orders = client.queue('orders')
    assert_refused(client.ping)
    assert_refused(client.capabilities)
    assert_refused(lambda: orders.post(1))
    assert_refused(lambda: list(orders.messages()))
    assert_refused(lambda: orders.claim(wait=4))
    assert_refused(orders.subscribe)
    assert_refused(lambda: orders.consume().receive(timeout=4))
    assert len(orders.post(2)) == 1


def test_streams_are_refused_at_once_in_a_forked_process(client: Client) -> None:
    orders = client.queue('orders')
    with orders.subscribe(marker='') as subscription, orders.consume() as consumer:
        orders.post([1, 2, 3])
        message = consumer.receive(timeout=60)
        assert message is not None
        first = subscription.receive(timeout=60)
        assert first is not None
        # What has come already is the parent's as well.
        assert_refused(lambda: subscription.receive(timeout=4))
        assert_refused(lambda: consumer.receive(timeout=4))
        assert_refused(message.ack)
        assert_refused(message.release)
        assert message.ack()


def test_closing_in_a_forked_process_leaves_the_parent_alone(server: ServerProcess) -> None:
    with make_client(server) as client:
        orders = client.queue('orders')
        with orders.subscribe() as subscription, orders.consume() as consumer:
            connection = client._requester.connector.connection

            def close_all() -> None:
                consumer.close()
                subscription.close()
                client.close()

            assert connection is not None
            assert in_a_fork(close_all) == ('None', pytest.approx(0, abs=AT_ONCE_SECONDS))
            assert in_a_fork(connection.close)[0] == 'None'
            orders.post('after')
            received = subscription.receive(timeout=60)
            assert received is not None
            assert received.body == 'after'
            assert client._requester.connector.connection is connection


def test_a_forked_process_can_make_a_client_of_its_own(server: ServerProcess) -> None:
    def post() -> int:
        with make_client(server) as client:
            return len(client.queue('orders').post([1, 2]))

    with make_client(server) as client:
        client.ping()
        assert in_a_fork(post)[0] == '2'


def test_it_is_a_client_that_is_closed() -> None:
    assert ClientForked.__mro__[1].__name__ == 'ClientClosed'


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith('zaqar')]


def descriptors() -> int:
    return len(list(pathlib.Path('/proc/self/fd').iterdir()))


def assert_nothing_is_left(before: int) -> None:
    wait_until(lambda: not threads(), SECONDS, 'the threads end')
    wait_until(lambda: descriptors() <= before, SECONDS, 'the descriptors are closed')


def drop(clients: list[Any]) -> None:
    clients.clear()
    gc.collect()


@pytest.fixture
def before() -> int:
    """How many descriptors are open, when nothing of other tests is left."""
    gc.collect()
    wait_until(lambda: not threads(), SECONDS, 'the threads of others end')
    return descriptors()


@pytest.mark.parametrize('transport', ['websocket', 'rest', 'auto'])
def test_dropped_clients_leave_nothing_but_a_warning(
    server: ServerProcess, before: int, transport: Transport
) -> None:
    clients = [make_client(server, transport) for _ in range(DROPPED)]
    for client in clients:
        client.queue('orders').post(1)
    del client
    assert descriptors() >= before + DROPPED
    with pytest.warns(ResourceWarning, match='A client of http://127.0.0.1:.* was not closed') as w:
        drop(clients)
    assert len([one for one in w if 'A client of' in str(one.message)]) == DROPPED
    assert_nothing_is_left(before)


def test_what_is_dropped_with_a_client_does_not_keep_it(server: ServerProcess, before: int) -> None:
    def use(client: Client) -> list[Any]:
        orders = client.queue('orders')
        subscription = orders.subscribe(marker='')
        consumer = orders.consume()
        orders.post([1, 2, 3])
        assert subscription.receive(timeout=60) is not None
        message = consumer.receive(timeout=60)
        return [client, orders, subscription, consumer, message]

    kept = [use(make_client(server)) for _ in range(3)]
    with pytest.warns(ResourceWarning):
        drop(kept)
    assert_nothing_is_left(before)


def test_a_client_that_polls_does_not_keep_its_consumers(
    server: ServerProcess, before: int
) -> None:
    def claim() -> list[Any]:
        client = make_client(server, 'rest')
        orders = client.queue('orders')
        orders.post(1)
        consumer = orders.consume(ttl=60)
        assert consumer.receive(timeout=60) is not None
        assert 'zaqar-renewal' in threads()
        return [client, consumer]

    kept = [claim()]
    with pytest.warns(ResourceWarning):
        drop(kept)
    assert_nothing_is_left(before)


def test_a_closed_client_warns_of_nothing(
    server: ServerProcess, before: int, recwarn: pytest.WarningsRecorder
) -> None:
    with make_client(server) as client:
        client.ping()
    del client
    gc.collect()
    assert not [one for one in recwarn if issubclass(one.category, ResourceWarning)]
    assert_nothing_is_left(before)


def test_streams_that_are_dropped_end(server: ServerProcess) -> None:
    with make_client(server) as client:
        queue: Queue = client.queue('orders')
        queue.post([1, 2, 3])
        stream: Any = queue.subscribe(marker='')
        assert stream.receive(timeout=60) is not None
        stream = queue.consume(credit=2)
        assert stream.receive(timeout=60) is not None
        assert queue.stats()['messages']['claimed'] == 2
        stream = None
        gc.collect()
        claimed = lambda: queue.stats()['messages']['claimed']  # noqa: E731
        wait_until(lambda: claimed() == 0, SECONDS, 'the messages are given back')
        connection = client._requester.connector.connection
        assert connection is not None
        wait_until(lambda: not connection._push_handlers, SECONDS, 'nothing is listened to')
