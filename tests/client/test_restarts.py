"""Clients under load outlive the server: nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import collections
import itertools
import pathlib
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.client.waiting import wait_until
from tests.ports import free_port
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client, OutcomeUnknown

PRODUCERS = 3
CONSUMERS = 2
CREDIT = 10
# What is posted between two restarts, at least.
LITTLE, MUCH = 100, 300
PATIENCE_SECONDS = 60.0
# A claim of a server that was killed holds for as long as a claim must at least.
LEASE_SECONDS = 60


class Load:
    """Producers, consumers and a subscriber, each a client of its own in a thread.

    Every number is posted to two queues: `kept`, from which nothing is taken, and `work`.
    acknowledged: the numbers whose posts were answered. unknown: those of which the client could
    not say whether they were posted. worked: how often each number was worked on. late: how many
    acknowledgements came after the lease was over. pushed: what the subscriber was pushed.
    """

    def __init__(self, url: str, *, consumers: int) -> None:
        self._url = url
        self._project = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._clients = ExitStack()
        self.acknowledged: dict[str, set[int]] = {'kept': set(), 'work': set()}
        self.unknown: list[int] = []
        self.worked: collections.Counter[int] = collections.Counter()
        self.late = 0
        self.pushed: list[int] = []
        self.failures: list[BaseException] = []
        subscriber = self._client()
        self._subscription = subscriber.queue('kept').subscribe(marker='')
        self._consumers = [
            self._client().queue('work').consume(credit=CREDIT, ttl=LEASE_SECONDS, grace=60)
            for _ in range(consumers)
        ]
        self._producing = [self._start(self._produce, self._client()) for _ in range(PRODUCERS)]
        self._working = [self._start(self._subscribe)]
        self._working += [self._start(self._work, consumer) for consumer in self._consumers]

    def _client(self) -> Client:
        return self._clients.enter_context(Client(self._url, project=self._project))

    def _start(self, job: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                job(*arguments)
            except BaseException as error:
                self.failures.append(error)
                raise

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def _produce(self, client: Client) -> None:
        while not self._over.is_set():
            number = next(self._numbers)
            for name in ('kept', 'work'):
                try:
                    client.queue(name).post(number, ttl=3600)
                except OutcomeUnknown:
                    self.unknown.append(number)
                else:
                    self.acknowledged[name].add(number)

    def _subscribe(self) -> None:
        for message in self._subscription:
            self.pushed.append(message.body)

    def _work(self, consumer: Iterator) -> None:
        for message in consumer:
            self.worked[message.body] += 1
            if not message.ack():
                self.late += 1

    @property
    def posted(self) -> int:
        return len(self.acknowledged['work'])

    def finish(self, patience: float) -> list[int]:
        """Post nothing more and work on what is left; gives what `kept` holds, in its order."""
        self._over.set()
        for thread in self._producing:
            thread.join(PATIENCE_SECONDS)
        kept = [message.body for message in self._client().queue('kept').messages()]
        wait_until(lambda: len(self.pushed) >= len(kept), PATIENCE_SECONDS, 'all is pushed')
        if self._consumers:
            wait_until(self._is_done, patience, 'all is worked on')
        return kept

    def _is_done(self) -> bool:
        assert not self.failures
        return self.acknowledged['work'] <= self.worked.keys()

    def close(self) -> None:
        self._over.set()
        self._subscription.close()
        for consumer in self._consumers:
            consumer.close()
        for thread in (*self._producing, *self._working):
            thread.join(PATIENCE_SECONDS)
        self._clients.close()
        assert not any(thread.is_alive() for thread in (*self._producing, *self._working))


def restart(
    tmp_path: pathlib.Path,
    how: list[Callable[[ServerProcess], object]],
    *,
    consumers: int,
    between: int = LITTLE,
) -> None:
    """Restart a server under load in each of the ways, and check what the clients have got."""
    port = str(free_port())
    with ServerProcess(tmp_path, '--port', port) as server, ExitStack() as stack:
        load = Load(server.url, consumers=consumers)
        stack.callback(load.close)
        for end in how:
            enough = load.posted + between
            wait_until(lambda: load.posted >= enough, PATIENCE_SECONDS, 'the load')  # noqa: B023
            end(server)
            server.start()
        enough = load.posted + between
        wait_until(lambda: load.posted >= enough, PATIENCE_SECONDS, 'the load')
        began = time.monotonic()
        kept = load.finish(patience=LEASE_SECONDS + PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        assert not load.failures
        assert load.unknown == []
        assert sorted(kept) == sorted(load.acknowledged['kept'])
        assert load.pushed == kept
        if consumers:
            assert load.worked.keys() == load.acknowledged['work']
        twice = sum(count - 1 for count in load.worked.values())
        # What was worked on and could not be acknowledged is all that may come again.
        assert twice <= len(how) * consumers * CREDIT
        print(
            f'{len(how)} restarts: {load.posted} posted, {len(load.unknown)} unknown; '
            f'{twice} of {load.worked.total()} worked on again, {load.late} acknowledged too late; '
            f'done {seconds:.1f} s after the last post'
        )


def stop(server: ServerProcess) -> None:
    assert server.stop(signal.SIGTERM) == 0


def kill(server: ServerProcess) -> None:
    server.kill()


def test_a_server_is_restarted(tmp_path: pathlib.Path) -> None:
    restart(tmp_path, [stop, stop, stop], consumers=CONSUMERS)


def test_a_server_is_killed_under_producers_and_subscribers(tmp_path: pathlib.Path) -> None:
    restart(tmp_path, [kill, kill, kill], consumers=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_is_restarted_and_killed_twenty_times(tmp_path: pathlib.Path) -> None:
    restart(tmp_path, [stop, kill] * 10, consumers=CONSUMERS, between=MUCH)
