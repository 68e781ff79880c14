"""The asyncio client does what the blocking one does, and gives up nothing when it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import pathlib
import signal
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.client import aio_scenario
from tests.client.scenario import EXPECTED
from tests.functional.test_push import Hasty
from tests.intermediaries import Intermediary
from tests.ports import free_port
from tests.server_process import ServerProcess
from zaqar_gevent.client import BadRequest, ClientClosed, LeaseLost, Timeout
from zaqar_gevent.client.aio import Client, Consumer, Message, Queue

LOOPS = ('asyncio', 'uvloop')
PATIENCE_SECONDS = 60.0
# What a server that is killed has leased is given to others after that.
LEASE_SECONDS = 4
IN_THE_WAY = ('strip', 'swallow', 'cut', 'buffer', 'stall')
RETRY_SECONDS = 1.0
CUT_SECONDS = 0.5
MANY = 1000


def run_in(loop: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """What runs a coroutine in an event loop of that kind."""
    if loop == 'uvloop':
        return pytest.importorskip('uvloop').run
    return asyncio.run


def client_of(server: ServerProcess, **options: Any) -> Client:
    return Client(server.url, **{'project': uuid.uuid4().hex, **options})


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ('loop', 'options'),
    [
        *((loop, {'transport': 'websocket'}) for loop in LOOPS),
        *((loop, {'transport': 'rest'}) for loop in LOOPS),
        ('asyncio', {'transport': 'websocket', 'encoding': 'json'}),
        ('asyncio', {'transport': 'websocket', 'engine': 'ws4py'}),
        ('asyncio', {'transport': 'websocket', 'compression': True}),
    ],
)
def test_the_scenario(server: ServerProcess, loop: str, options: dict[str, Any]) -> None:
    transcript = run_in(loop)(aio_scenario.run(server.url, project=uuid.uuid4().hex, **options))
    assert transcript == EXPECTED


class Traffic:
    """Numbers that a client posts to a queue, and receives from it, each in a task."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._is_over = False
        self.posted = 0
        self.received: list[int] = []

    async def post(self) -> None:
        while not self._is_over:
            numbers = range(self.posted, self.posted + 20)
            await self._queue.post(list(numbers), ttl=600)
            self.posted += 20
            await asyncio.sleep(0.05)

    async def receive(self) -> None:
        async for message in self._queue.subscribe(marker=''):
            self.received.append(message.body)

    def stop(self) -> None:
        self._is_over = True


async def there_and_back(server: ServerProcess, mode: str) -> None:
    """The way is barred, becomes free, is barred again and becomes free again."""
    with Intermediary(server.port, mode, seconds=CUT_SECONDS) as between:
        async with Client(
            between.url, project=uuid.uuid4().hex, retry_seconds=RETRY_SECONDS
        ) as client:
            queue = client.queue('numbers')
            traffic = Traffic(queue)
            posting = asyncio.create_task(traffic.post())
            receiving = asyncio.create_task(traffic.receive())
            await until(lambda: client.state == 'polling', f'{mode}: REST')
            for way, state in (('open', 'websocket'), (mode, 'polling'), ('open', 'websocket')):
                await asyncio.sleep(1)  # of traffic in this state
                between.switch(way)
                await until(lambda: client.state == state, f'{mode}: {state}')  # noqa: B023
            traffic.stop()
            await posting
            await until(lambda: len(traffic.received) >= traffic.posted, f'{mode}: all has come')
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await receiving
    assert traffic.received == list(range(traffic.posted))


@pytest.mark.parametrize('loop', LOOPS)
def test_each_message_comes_once_and_in_order_whatever_is_in_the_way(
    server: ServerProcess, loop: str
) -> None:
    async def all_at_once() -> None:
        await asyncio.gather(*(there_and_back(server, mode) for mode in IN_THE_WAY))

    run_in(loop)(all_at_once())


class Load:
    """Three producers, a subscriber and a worker, each a client of its own with a task."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._is_over = False
        self.acknowledged: list[int] = []
        self.pushed: list[int] = []
        self.queued: set[int] = set()
        self.worked: set[int] = set()

    async def more(self, count: int) -> None:
        """Wait until so much more was posted."""
        enough = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= enough, 'the load')

    def stop(self) -> None:
        self._is_over = True

    async def produce(self, client: Client) -> None:
        while not self._is_over:
            number = next(self._numbers)
            await client.queue('kept').post(number, ttl=3600)
            self.acknowledged.append(number)
            await client.queue('work').post(number, ttl=3600)
            self.queued.add(number)

    async def subscribe(self, client: Client) -> None:
        async for message in client.queue('kept').subscribe(marker=''):
            self.pushed.append(message.body)

    async def work(self, client: Client) -> None:
        async with client.queue('work').consume(credit=10, ttl=LEASE_SECONDS, grace=60) as consumer:
            while True:
                with contextlib.suppress(LeaseLost):
                    message = await consumer.receive(PATIENCE_SECONDS)
                    if message is not None:
                        self.worked.add(message.body)
                        await message.ack(wait=message.body % 2 == 0)


async def under_load(server: ServerProcess) -> None:
    """Stop and kill a server under load, and start it again."""
    load = Load()
    async with contextlib.AsyncExitStack() as stack:
        project = uuid.uuid4().hex
        clients = [
            await stack.enter_async_context(Client(server.url, project=project)) for _ in range(5)
        ]
        producing = [asyncio.create_task(load.produce(one)) for one in clients[:3]]
        others = [
            asyncio.create_task(load.subscribe(clients[3])),
            asyncio.create_task(load.work(clients[4])),
        ]
        for end in (functools.partial(server.stop, signal.SIGTERM), server.kill, server.kill):
            await load.more(100)
            await asyncio.to_thread(end)
            await asyncio.to_thread(server.start)
        await load.more(100)
        load.stop()
        await asyncio.gather(*producing)
        kept = [one.body async for one in clients[0].queue('kept').messages()]
        await until(lambda: len(load.pushed) >= len(kept), 'all is pushed')
        await until(lambda: load.queued <= load.worked, 'all is worked on')
        for task in others:
            task.cancel()
        ended = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError | LeaseLost) for one in ended), ended
    assert sorted(load.acknowledged) == sorted(kept)
    assert load.pushed == kept
    assert load.queued == load.worked


def test_a_server_is_restarted_and_killed(tmp_path: pathlib.Path) -> None:
    """Nothing that was acknowledged is lost or comes twice."""
    port = str(free_port())
    with Hasty(tmp_path, '--port', port) as server:
        asyncio.run(under_load(server))


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
@pytest.mark.parametrize('loop', LOOPS)
def test_a_thousand_requests_are_in_flight(
    server: ServerProcess, transport: str, loop: str
) -> None:
    count = MANY if transport == 'websocket' else MANY // 10

    async def post_all() -> None:
        async with client_of(server, transport=transport) as client:
            queue = client.queue('many')
            await queue.create()
            ids = await asyncio.gather(*(queue.post(number) for number in range(count)))
            assert len({one for [one] in ids}) == count
            assert (await queue.stats())['messages']['total'] == count

    run_in(loop)(post_all())


def test_a_thousand_subscriptions_wait_without_a_thread_each(server: ServerProcess) -> None:
    async def wait() -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(server)) for _ in range(10)]
            streams = await asyncio.gather(
                *(
                    client.queue(f'q{n}').subscribe()
                    for client in clients
                    for n in range(MANY // 10)
                )
            )
            waiting = [asyncio.create_task(stream.receive()) for stream in streams]
            assert threading.active_count() == threads
            await clients[3].queue('q7').post('one')
            done, still_waiting = await asyncio.wait(
                waiting, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_SECONDS
            )
            assert [task.result().body for task in done] == ['one']
            for task in still_waiting:
                task.cancel()
            await asyncio.gather(*still_waiting, return_exceptions=True)

    threads = threading.active_count()
    asyncio.run(wait())


def test_a_client_that_is_closed_ends_what_waits(server: ServerProcess) -> None:
    async def close() -> None:
        client = client_of(server)
        subscription = await client.queue('q').subscribe()
        waiting = asyncio.create_task(subscription.receive())
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(ClientClosed):
            await waiting
        await subscription.close()

    asyncio.run(close())


def test_a_client_that_is_dropped_is_closed(server: ServerProcess) -> None:
    async def drop() -> None:
        client = client_of(server)
        await client.queue('q').post(1)
        connector = client._requester.connector
        with pytest.warns(ResourceWarning, match='was not closed'):
            del client
        await until(lambda: connector.state == 'closed', 'the client is closed')

    asyncio.run(drop())


# Cancellation: each operation is cancelled at each of its suspensions in turn.


class CancelAt:
    """Awaits a coroutine, and cancels the task that does at the suspension number `count`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], count: int) -> None:
        self._coroutine = coroutine
        self._count = count

    def __await__(self) -> Any:
        step: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        for number in itertools.count(1):
            try:
                suspended = step()
            except StopIteration as stop:
                return stop.value
            if number == self._count:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                step = functools.partial(self._coroutine.send, (yield suspended))
            except BaseException as error:
                step = functools.partial(self._coroutine.throw, error)
        return None


async def cancelled_at(number: int, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives, None if it was cancelled at that suspension."""

    async def run() -> Any:
        return await CancelAt(coroutine, number)

    with contextlib.suppress(asyncio.CancelledError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.create_task(run())
    return None


async def cancel_everywhere(
    operation: Callable[[], Coroutine[Any, Any, Any]],
    check: Callable[[], Coroutine[Any, Any, None]],
) -> int:
    """Cancel an operation at each suspension; how many there were. `check` is called after each."""
    done = False
    others = len(asyncio.all_tasks())

    async def run() -> None:
        nonlocal done
        await operation()
        done = True

    for number in itertools.count(1):
        await cancelled_at(number, run())
        # What goes on in the background gives back what it was given.
        await until(lambda: len(asyncio.all_tasks()) <= others, 'the background is quiet')
        await check()
        if done:
            return number - 1
    return 0


@contextlib.asynccontextmanager
async def filled(server: ServerProcess, transport: str) -> AsyncIterator[tuple[Client, Queue]]:
    async with client_of(server, transport=transport) as client:
        queue = client.queue('q')
        await queue.post(list(range(5)), ttl=600)
        yield client, queue


async def all_free(queue: Queue, count: int = 5) -> None:
    """All messages are to be had, soon: no claim was left behind."""
    deadline = time.monotonic() + 10
    while True:
        stats = (await queue.stats())['messages']
        if stats['free'] == stats['total'] == count:
            return
        assert time.monotonic() < deadline, stats
        await asyncio.sleep(0.01)


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
@pytest.mark.parametrize('wait', [0, 5])
def test_a_claim_that_is_cancelled_is_given_back(
    server: ServerProcess, transport: str, wait: int
) -> None:
    async def claim_everywhere() -> None:
        async with filled(server, transport) as (_, queue):

            async def claim() -> None:
                claim = await queue.claim(ttl=60, wait=wait)
                await claim.release()

            assert await cancel_everywhere(claim, lambda: all_free(queue)) >= 2

    asyncio.run(claim_everywhere())


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_consumer_that_is_cancelled_gives_everything_back(
    server: ServerProcess, transport: str
) -> None:
    async def consume_everywhere() -> None:
        async with filled(server, transport) as (_, queue):

            async def consume() -> None:
                async with queue.consume(credit=2, ttl=60) as consumer:
                    for _ in range(2):
                        message = await consumer.receive(PATIENCE_SECONDS)
                        assert message is not None
                        await message.release()

            assert await cancel_everywhere(consume, lambda: all_free(queue)) >= 3

    asyncio.run(consume_everywhere())


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_receive_that_is_cancelled_loses_nothing(server: ServerProcess, transport: str) -> None:
    async def receive_everywhere() -> None:
        async with filled(server, transport) as (_, queue):
            for number in range(1, 12):
                async with queue.consume(credit=5, ttl=60) as consumer:
                    await receive_all(consumer, number)
                await all_free(queue)
                async with queue.subscribe(marker='') as subscription:
                    await receive_all(subscription, number)

    async def receive_all(stream: Any, number: int) -> None:
        message = await cancelled_at(number, stream.receive(PATIENCE_SECONDS))
        got = [] if message is None else [message.body]
        while len(got) < 5:
            message = await stream.receive(PATIENCE_SECONDS)
            assert message is not None
            got.append(message.body)
        assert sorted(got) == list(range(5))

    asyncio.run(receive_everywhere())


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_whatever_is_cancelled_the_client_goes_on(server: ServerProcess, transport: str) -> None:
    async def everything() -> None:
        async with filled(server, transport) as (client, queue):

            async def works() -> None:
                assert (await queue.stats())['messages']['total'] >= 5

            async def subscribe() -> None:
                async with queue.subscribe(marker='') as subscription:
                    assert await subscription.receive(PATIENCE_SECONDS) is not None

            operations: list[Callable[[], Coroutine[Any, Any, Any]]] = [
                functools.partial(queue.post, 'x'),
                queue.get_metadata,
                queue.create,
                client.ping,
                client.capabilities,
                functools.partial(one_of, queue),
                subscribe,
            ]
            for operation in operations:
                await cancel_everywhere(operation, works)

    async def one_of(queue: Queue) -> Message:
        return await anext(aiter(queue.messages()))

    asyncio.run(everything())


def test_an_ack_that_is_cancelled_is_made_or_comes_again(server: ServerProcess) -> None:
    async def ack_everywhere() -> None:
        async with client_of(server) as client:
            queue = client.queue('q')
            for number in range(1, 6):
                await queue.post(number, ttl=600)
                async with queue.consume(ttl=60) as consumer:
                    message = await consumer.receive(PATIENCE_SECONDS)
                    assert message is not None
                    await cancelled_at(number, message.ack())
                    await message.ack()
                assert (await queue.stats())['messages']['total'] == 0

    asyncio.run(ack_everywhere())


# Acknowledgements that nobody waits for.


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_acks_without_waiting_are_made(server: ServerProcess, transport: str) -> None:
    async def work() -> None:
        async with client_of(server, transport=transport) as client:
            queue = client.queue('q')
            await queue.post(list(range(200)), ttl=600)
            async with queue.consume(credit=50) as consumer:
                for _ in range(200):
                    message = await consumer.receive(PATIENCE_SECONDS)
                    assert message is not None
                    assert await message.ack(wait=False)
            assert (await queue.stats())['messages']['total'] == 0

    asyncio.run(work())


async def consume_one_by_one(queue: Queue, consumer: Consumer, count: int) -> list[Message]:
    """Messages that were posted one after the other, so that each has a claim of its own."""
    found = []
    for number in range(count):
        await queue.post(number, ttl=600)
        message = await consumer.receive(PATIENCE_SECONDS)
        assert message is not None
        found.append(message)
    return found


def test_an_ack_that_failed_is_told_by_the_next_receive_or_close(server: ServerProcess) -> None:
    async def work() -> None:
        async with client_of(server) as client:
            queue = client.queue('q')
            consumer = queue.consume(credit=3, ttl=60)
            lost, kept, last = await consume_one_by_one(queue, consumer, 3)
            # The leases of two of them end, and somebody else claims them.
            for one in (lost, last):
                await queue.release_claim(one.claim_id)
            assert len(await queue.claim(ttl=60)) == 2
            await lost.ack(wait=False)
            await kept.ack(wait=False)
            with pytest.raises(LeaseLost) as failed:
                await consumer.receive(PATIENCE_SECONDS)
            assert failed.value.message_ids == [lost.id]
            await last.ack(wait=False)
            with pytest.raises(LeaseLost) as failed:
                await consumer.close()
            assert failed.value.message_ids == [last.id]
            assert (await queue.stats())['messages']['total'] == 2

    asyncio.run(work())


def test_of_many_acks_only_those_that_failed_are_told(server: ServerProcess) -> None:
    async def work() -> None:
        async with client_of(server) as client:
            queue = client.queue('q')
            consumer = queue.consume(credit=10, ttl=60)
            held = await consume_one_by_one(queue, consumer, 10)
            await queue.release_claim(held[5].claim_id)
            assert len(await queue.claim(ttl=60)) == 1
            for one in held:
                await one.ack(wait=False)
            with pytest.raises(LeaseLost) as failed:
                await consumer.close()
            assert failed.value.message_ids == [held[5].id]
            assert (await queue.stats())['messages']['total'] == 1

    asyncio.run(work())


def test_a_timeout_is_kept(server: ServerProcess) -> None:
    async def wait() -> None:
        with socket.create_server(('127.0.0.1', 0)) as silent:
            url = f'http://127.0.0.1:{silent.getsockname()[1]}'
            async with Client(url, project='p', transport='rest', timeout=0.3) as client:
                began = time.monotonic()
                with pytest.raises(Timeout):
                    await client.queue('q').stats()
                assert time.monotonic() - began < 20

    asyncio.run(wait())


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_release_that_is_refused_leaves_the_message_to_its_consumer(
    server: ServerProcess, transport: str
) -> None:
    async def work() -> None:
        async with client_of(server, transport=transport) as client:
            queue = client.queue('q')
            await queue.post('job', ttl=600)
            async with queue.consume(credit=1, ttl=60) as consumer:
                message = await consumer.receive(PATIENCE_SECONDS)
                assert message is not None
                for delay in (-1, 10**6):
                    with pytest.raises(BadRequest):
                        await message.release(delay=delay)
                assert await message.ack()
            assert (await queue.stats())['messages']['total'] == 0

    asyncio.run(work())


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_messages_of_a_claim_are_released_and_rejected_one_by_one(
    server: ServerProcess, transport: str
) -> None:
    async def settle() -> None:
        async with client_of(server, transport=transport) as client:
            queue = client.queue('q')
            with pytest.raises(BadRequest):
                await queue.post(1)
                await (await queue.claim(ttl=60)).messages[0].reject('why not')
            await client.queue('dead').create()
            await queue.delete()
            await queue.create({'_max_claim_count': 5, '_dead_letter_queue': 'dead'})
            await queue.post([1, 2, 3], ttl=600)
            claim = await queue.claim(ttl=60)
            first, second, third = claim.messages
            assert first.attempt == 1
            await first.release()
            await second.reject('no such sku')
            await third.release(delay=600)
            again = await queue.claim(ttl=60)
            assert [(one.body, one.attempt) for one in again] == [(1, 2)]
            dead = [one.body async for one in client.queue('dead').messages()]
            assert dead == [2]

    asyncio.run(settle())
