"""A pool of workers: retries, dead letters, a graceful stop, and what it tells."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import pytest

from tests.client.waiting import wait_until
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, Forbidden, Message, Queue, Reject, Retry, Worker, aio

SECONDS = 60.0


class Running:
    """A worker that runs in a thread while a test looks at it."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self.worker

    def __exit__(self, *exc_info: object) -> None:
        self.worker.stop()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.worker.run()
        except Exception as error:
            self.error = error


@pytest.fixture(params=['websocket', 'rest'])
def queue(server: ServerProcess, request: pytest.FixtureRequest) -> Any:
    with Client(server.url, project=uuid.uuid4().hex, transport=request.param) as client:
        yield client.queue('work')


def total(queue: Queue) -> int:
    return queue.stats()['messages']['total']


def test_a_group_is_worked_on_in_its_order_beside_others(queue: Queue) -> None:
    queue.configure(ordered_groups=True)
    queue.post([1, 2, 3], group='a')
    queue.post([4], group='b')
    began: list[set[int]] = []
    at_once: set[int] = set()
    other_began = threading.Event()

    def handle(message: Message) -> None:
        at_once.add(message.body)
        if message.body == 4:
            other_began.set()
        else:
            began.append(at_once - {4})
        assert other_began.wait(SECONDS)
        at_once.remove(message.body)

    with Running(Worker(queue, handle, concurrency=4)) as worker:
        wait_until(lambda: worker.succeeded == 4, SECONDS, 'all messages are worked on')
    assert began == [{1}, {2}, {3}]


def test_every_message_is_worked_on_by_several_at_a_time(queue: Queue) -> None:
    together = threading.Barrier(4, timeout=SECONDS)
    done: list[int] = []

    def handle(message: Message) -> None:
        together.wait()
        done.append(message.body)

    queue.post(list(range(20)), ttl=600)
    worker = Worker(queue, handle, concurrency=4, ttl=60)
    with Running(worker):
        wait_until(lambda: worker.succeeded == 20, SECONDS, 'all is done')
    assert sorted(done) == list(range(20))
    assert (worker.failed, total(queue)) == (0, 0)


def test_a_message_that_fails_is_retried_and_then_a_dead_letter(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[Any, str]] = []
    tries: list[str] = []

    def handle(message: Message) -> None:
        tries.append(message.body)
        if message.body == 'bad':
            raise RuntimeError('as it must')

    type(queue)(queue._target.requester, 'dead').create()
    queue.create({'_max_claim_count': 3, '_dead_letter_queue': 'dead'})
    queue.post(['good', 'bad'], ttl=600)
    worker = Worker(
        queue,
        handle,
        concurrency=1,
        ttl=60,
        pause=0,
        on_error=lambda message, seconds, error: told.append((message.body, str(error))),
    )
    dead = type(queue)(queue._target.requester, 'dead')
    with caplog.at_level(logging.ERROR), Running(worker):
        wait_until(lambda: total(dead) == 1, SECONDS, 'there is a dead letter')
    assert [message.body for message in dead.messages()] == ['bad']
    assert tries.count('bad') == 3
    assert tries.count('good') == 1
    assert told == [('bad', 'as it must')] * 3
    assert (worker.succeeded, worker.failed) == (1, 3)
    assert 'RuntimeError: as it must' in caplog.text
    # The traceback begins with the handler.
    assert '/client/sync/worker.py' not in caplog.text
    assert 'test_worker.py' in caplog.text


def failures(queue: Queue, pause: float, count: int) -> float:
    times: list[float] = []

    def handle(_message: Message) -> None:
        times.append(time.monotonic())
        raise RuntimeError('as it must')

    queue.post('bad', ttl=600)
    with Running(Worker(queue, handle, concurrency=1, ttl=60, pause=pause)):
        wait_until(lambda: len(times) >= count, SECONDS, 'it is tried again')
    queue.purge()
    return times[count - 1] - times[0]


def test_a_retry_is_late_without_settings_too(queue: Queue) -> None:
    assert failures(queue, 0.5, 3) >= 1.0


def test_a_queue_that_delays_retries_says_how_long(queue: Queue) -> None:
    queue.create({'_retry_delay': {'initial': 1, 'factor': 1}})
    began = time.monotonic()
    assert failures(queue, 2 * SECONDS, 2) >= 1.0
    assert time.monotonic() - began < SECONDS


def test_stopping_does_not_wait_for_a_pause(queue: Queue) -> None:
    failed = threading.Event()

    def handle(_message: Message) -> None:
        failed.set()
        raise RuntimeError('as it must')

    queue.post('bad', ttl=600)
    with Running(Worker(queue, handle, concurrency=1, ttl=60, pause=10 * SECONDS)):
        assert failed.wait(SECONDS)
    wait_until(lambda: queue.stats()['messages']['free'] == 1, SECONDS, 'it is given back')


async def coroutine_function(_message: Message) -> None:
    pytest.fail('Nothing awaits this.')


@pytest.mark.parametrize('kind', [coroutine_function, functools.partial(coroutine_function)])
def test_a_coroutine_function_is_no_handler_of_a_blocking_worker(queue: Queue, kind: Any) -> None:
    for options in ({'handler': kind}, {'handler': print, 'on_done': kind}):
        with pytest.raises(TypeError, match=r'zaqar_gevent\.client\.aio\.Worker'):
            Worker(queue, **options)


def test_a_handler_that_gives_an_awaitable_has_failed(queue: Queue) -> None:
    errors: list[Exception] = []
    queue.post(1, ttl=600)
    worker = Worker(
        queue,
        lambda message: coroutine_function(message),  # noqa: PLW0108 - only the call says it
        ttl=60,
        on_error=lambda message, seconds, error: errors.append(error),
    )
    with Running(worker):
        wait_until(lambda: bool(errors), SECONDS, 'the failure')
    assert isinstance(errors[0], TypeError)
    assert worker.succeeded == 0
    assert total(queue) == 1


@pytest.mark.parametrize('kind', [Worker, aio.Worker])
def test_a_worker_needs_a_queue_of_its_client_and_a_function(queue: Queue, kind: Any) -> None:
    with pytest.raises(TypeError, match=r"client\.queue\('orders'\)"):
        kind('orders', print)
    if kind is Worker:
        with pytest.raises(TypeError, match='a function that takes a message, not None'):
            kind(queue, None)
    else:
        with pytest.raises(TypeError, match='queue'):
            kind(queue, print)


def test_a_handler_says_when_to_retry_and_what_to_reject(queue: Queue) -> None:
    attempts: list[tuple[str, int | None]] = []

    def handle(message: Message) -> None:
        attempts.append((message.body, message.attempt))
        if message.body == 'bad':
            raise Reject('no such sku')
        if message.attempt == 1:
            raise Retry(delay=1)

    dead = type(queue)(queue._target.requester, 'dead')
    dead.create()
    queue.create({'_max_claim_count': 5, '_dead_letter_queue': 'dead'})
    queue.post(['bad', 'late'], ttl=600)
    worker = Worker(queue, handle, concurrency=1, ttl=60)
    with Running(worker):
        wait_until(lambda: worker.succeeded == 1, SECONDS, 'the retry')
    assert attempts == [('bad', 1), ('late', 1), ('late', 2)]
    assert [message.body for message in dead.messages()] == ['bad']
    assert total(queue) == 0


def test_stopping_lets_handlers_end_and_gives_the_rest_back(queue: Queue) -> None:
    began, go_on = threading.Event(), threading.Event()

    def handle(message: Message) -> None:
        began.set()
        assert go_on.wait(SECONDS)

    queue.post([1, 2, 3], ttl=600)
    worker = Worker(queue, handle, concurrency=1, ttl=60)
    with Running(worker):
        assert began.wait(SECONDS)
        worker.stop()
        go_on.set()
    assert worker.succeeded == 1
    wait_until(lambda: queue.stats()['messages']['free'] == 2, SECONDS, 'the rest is free')


def test_a_handler_that_does_not_end_is_not_waited_for_for_ever(queue: Queue) -> None:
    began, go_on = threading.Event(), threading.Event()

    def handle(message: Message) -> None:
        began.set()
        go_on.wait(SECONDS)

    queue.post(1, ttl=600)
    with Running(Worker(queue, handle, concurrency=1, ttl=60, stop_timeout=0.1)) as worker:
        assert began.wait(SECONDS)
        worker.stop()
        wait_until(lambda: queue.stats()['messages']['free'] == 1, SECONDS, 'it is given back')
    go_on.set()


def test_what_receiving_raises_ends_the_worker(queue: Queue) -> None:
    running = Running(Worker(queue, lambda _: None, ttl=1))
    with running:
        wait_until(lambda: running.error is not None, SECONDS, 'the error')
    assert getattr(running.error, 'status', None) == 400
    assert not isinstance(running.error, Forbidden)


def test_a_worker_of_tasks(server: ServerProcess) -> None:
    async def work() -> None:
        running, most = 0, 0
        are_all_running = asyncio.Event()

        async def handle(message: aio.Message) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 20:
                are_all_running.set()
            await are_all_running.wait()
            await asyncio.sleep(0.01)
            running -= 1
            if worker.succeeded >= 60:
                worker.stop()

        async with aio.Client(server.url, project=uuid.uuid4().hex) as client:
            queue = client.queue('work')
            await queue.post(list(range(100)), ttl=600)
            worker = aio.Worker(queue, handle, concurrency=20, ttl=60)
            await worker.run()
            assert most == 20
            assert worker.succeeded >= 61
            assert (await queue.stats())['messages']['total'] == 100 - worker.succeeded

    asyncio.run(asyncio.wait_for(work(), SECONDS))


PROGRAM = """
import asyncio, sys, time
from zaqar_gevent.client import Client, Worker, aio
url, project, kind = sys.argv[1:]
def handle(message):
    print('began', flush=True)
    time.sleep(0.5)
    print('ended', flush=True)
async def work():
    async with aio.Client(url, project=project) as client:
        await aio.Worker(client.queue('work'), handle, concurrency=1).run()
if kind == 'asyncio':
    asyncio.run(work())
else:
    with Client(url, project=project) as client:
        Worker(client.queue('work'), handle, concurrency=1).run()
print('stopped', flush=True)
"""


@pytest.mark.parametrize('kind', ['threads', 'asyncio'])
def test_a_signal_stops_it_gracefully(server: ServerProcess, kind: str) -> None:
    project = uuid.uuid4().hex
    with Client(server.url, project=project) as client:
        client.queue('work').post([1, 2], ttl=600)
        process = subprocess.Popen(
            [sys.executable, '-c', PROGRAM, server.url, project, kind],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == 'began\n'
        os.kill(process.pid, signal.SIGTERM)
        rest, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
        assert rest.split() == ['ended', 'stopped']
        free = lambda: client.queue('work').stats()['messages']['free']  # noqa: E731
        wait_until(lambda: free() == 1, SECONDS, 'the other message is free')
