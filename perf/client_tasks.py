"""What a program does with a client: one task in a process of its own, as a user would write it.

    python -m perf.client_tasks TASK URL SECONDS

Prints a line of JSON: how many messages it has posted or taken, in how many seconds of time and of
its own processor. `perf.clients` runs them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

BODY = {'id': 7, 'name': 'x' * 72}
TTL = 3600
THREADS, TASKS = 16, 1000
PRELOADED = 30_000
"""Messages that a consumer finds."""
BATCH = 500
QUEUE = 'clients'


class Measured(NamedTuple):
    """count: messages. seconds, cpu: of time and of this process."""

    count: int
    seconds: float
    cpu: float


class _Watch:
    """From when it is made, for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._ends = self._began + seconds

    @property
    def is_over(self) -> bool:
        return time.perf_counter() > self._ends

    def stop(self, count: int) -> Measured:
        return Measured(count, time.perf_counter() - self._began, time.process_time() - self._cpu)


Task = Callable[[str, float], Measured]


def posts_one_by_one(url: str, seconds: float) -> Measured:
    """A loop that posts."""
    from zaqar_gevent.client import Client

    with Client(url, project='demo') as client:
        queue = client.queue(QUEUE)
        queue.post(BODY, ttl=TTL)
        watch, count = _Watch(seconds), 0
        while not watch.is_over:
            queue.post(BODY, ttl=TTL)
            count += 1
        return watch.stop(count)


def posts_of_threads(url: str, seconds: float) -> Measured:
    """Threads that post by one client."""
    from zaqar_gevent.client import Client

    with Client(url, project='demo') as client:
        queue = client.queue(QUEUE)
        queue.post(BODY, ttl=TTL)
        watch = _Watch(seconds)
        counts = [0] * THREADS

        def work(number: int) -> None:
            while not watch.is_over:
                queue.post(BODY, ttl=TTL)
                counts[number] += 1

        threads = [threading.Thread(target=work, args=[number]) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return watch.stop(sum(counts))


def _consumes(url: str, seconds: float, *, wait: bool) -> Measured:
    from zaqar_gevent.client import Client

    with Client(url, project='demo') as client:
        queue = client.queue(f'{QUEUE}-{time.time_ns()}')
        for _ in range(PRELOADED // BATCH):
            queue.post([BODY] * BATCH, ttl=TTL)
        with queue.consume(credit=500) as consumer:
            assert consumer.receive(10).ack()
            watch, count = _Watch(seconds), 0
            while not watch.is_over and count < PRELOADED - BATCH:
                message = consumer.receive(10)
                assert message is not None
                message.ack(wait=wait)
                count += 1
            return watch.stop(count)


def consumes(url: str, seconds: float) -> Measured:
    """A loop that takes messages, and waits for each acknowledgement."""
    return _consumes(url, seconds, wait=True)


def consumes_without_waiting(url: str, seconds: float) -> Measured:
    """A loop that takes messages, and does not wait for acknowledgements."""
    return _consumes(url, seconds, wait=False)


def posts_of_tasks(url: str, seconds: float) -> Measured:
    """Asyncio tasks that post by one client."""
    from zaqar_gevent.client.aio import Client

    async def main() -> Measured:
        async with Client(url, project='demo') as client:
            queue = client.queue(QUEUE)
            return await _repeat(lambda: queue.post(BODY, ttl=TTL), seconds)

    return asyncio.run(main())


async def _repeat(post: Callable[[], Awaitable[Any]], seconds: float) -> Measured:
    """TASKS tasks that post in loops."""
    await post()
    watch = _Watch(seconds)

    async def work() -> int:
        count = 0
        while not watch.is_over:
            await post()
            count += 1
        return count

    return watch.stop(sum(await asyncio.gather(*(work() for _ in range(TASKS)))))


def nats_posts_one_by_one(url: str, seconds: float) -> Measured:
    """nats.py: a loop that publishes to JetStream."""
    import nats

    async def main() -> Measured:
        connection = await nats.connect(url)
        stream, payload = connection.jetstream(), json.dumps(BODY).encode()
        await stream.publish('perf', payload)
        watch, count = _Watch(seconds), 0
        while not watch.is_over:
            await stream.publish('perf', payload)
            count += 1
        measured = watch.stop(count)
        await connection.close()
        return measured

    return asyncio.run(main())


def nats_posts_of_tasks(url: str, seconds: float) -> Measured:
    """nats.py: tasks that publish to JetStream."""
    import nats

    async def main() -> Measured:
        connection = await nats.connect(url)
        stream, payload = connection.jetstream(), json.dumps(BODY).encode()
        measured = await _repeat(lambda: stream.publish('perf', payload), seconds)
        await connection.close()
        return measured

    return asyncio.run(main())


def nats_consumes(url: str, seconds: float) -> Measured:
    """nats.py: a loop that fetches batches of JetStream, and waits for each acknowledgement."""
    import nats

    async def main() -> Measured:
        connection = await nats.connect(url)
        stream, payload = connection.jetstream(), json.dumps(BODY).encode()
        for _ in range(PRELOADED // BATCH):
            await asyncio.gather(*(stream.publish('perf', payload) for _ in range(BATCH)))
        consumer = await stream.pull_subscribe('perf', durable='perf')
        watch, count = _Watch(seconds), 0
        while not watch.is_over and count < PRELOADED - BATCH:
            for message in await consumer.fetch(BATCH, timeout=10):
                await message.ack_sync()
                count += 1
                if watch.is_over:
                    break
        measured = watch.stop(count)
        await connection.close()
        return measured

    return asyncio.run(main())


def kombu_posts_one_by_one(url: str, seconds: float) -> Measured:
    """kombu: a loop that publishes persistent messages, each confirmed."""
    import kombu

    options = {'confirm_publish': True}
    with kombu.Connection(url, transport_options=options) as connection:
        queue = connection.SimpleQueue(QUEUE)
        queue.put(BODY)
        watch, count = _Watch(seconds), 0
        while not watch.is_over:
            queue.put(BODY)
            count += 1
        measured = watch.stop(count)
        queue.close()
        return measured


def kombu_consumes(url: str, seconds: float) -> Measured:
    """kombu: a loop that takes messages; acknowledgements are not confirmed."""
    import kombu

    with kombu.Connection(url) as connection:
        queue = connection.SimpleQueue(f'{QUEUE}-taken')
        for _ in range(PRELOADED):
            queue.put(BODY)
        queue.get(timeout=10).ack()
        watch, count = _Watch(seconds), 0
        while not watch.is_over and count < PRELOADED - BATCH:
            queue.get(timeout=10).ack()
            count += 1
        measured = watch.stop(count)
        queue.close()
        return measured


TASKS_BY_NAME: dict[str, Task] = {
    task.__name__: task
    for task in (
        posts_one_by_one,
        posts_of_threads,
        consumes,
        consumes_without_waiting,
        posts_of_tasks,
        nats_posts_one_by_one,
        nats_posts_of_tasks,
        nats_consumes,
        kombu_posts_one_by_one,
        kombu_consumes,
    )
}


def main() -> None:
    name, url, seconds = sys.argv[1:]
    print(json.dumps(TASKS_BY_NAME[name](url, float(seconds))._asdict()))


if __name__ == '__main__':
    main()
