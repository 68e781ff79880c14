"""Subscribers that do not read what they are pushed, beside many that do."""

from __future__ import annotations

import contextlib
import pathlib
import selectors
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.callers import Identity, RestCaller, new_identity
from tests.faults.client import COMPACT, DEFAULT, Dialect
from tests.faults.light_load import PROMPT, LightLoad
from tests.faults.memory import MB, Peak
from tests.functional.test_push import Subscriber, eventually, post
from tests.server_process import ServerProcess

TOO_SLOW = 4008
CROWD = 1_000
FEW = 10
PER_ADDRESS = 500
EACH_BYTES = 1_000
POSTS_PER_SECOND = 10
FLOOD_BYTES = 200_000
FLOODS_PER_SECOND = 50
# More than the outbox and the system hold for a client.
FLOODS = 60
TRIES = 3
CONFIG = '[drivers:transport:gevent]\nclose_timeout = 30\n'


class Audience(threading.Thread):
    """Many subscribers, read in one thread.

    latencies: from each post to each push, in seconds. floods: how many large messages were posted
        to another queue beside.
    """

    def __init__(self, port: int, identity: Identity, count: int) -> None:
        super().__init__(daemon=True)
        self.latencies: list[float] = []
        self.floods = 0
        self._clients = [
            Subscriber(port, identity=identity, source=f'127.0.1.{1 + number // PER_ADDRESS}')
            for number in range(count)
        ]
        for client in self._clients:
            client.subscribe('small')
        self._is_over = False

    def __len__(self) -> int:
        return len(self._clients)

    def __enter__(self) -> Audience:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        self.join()
        for client in self._clients:
            client.socket.close()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while not self._is_over:
                for key, _ in selector.select(0.1):
                    self._take(key.data)

    def _take(self, client: Subscriber) -> None:
        while True:
            push = client.push()
            self.latencies.append(time.monotonic() - push['message']['body']['posted_at'])
            if not client.has_more:
                return

    def p99_of(self, seconds: float, rest: RestCaller) -> float:
        """Post for that long, to them and to whoever listens to the flood."""
        self.latencies.clear()
        posted = self.floods = 0
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if posted <= (now - began) * POSTS_PER_SECOND:
                post(rest, {'posted_at': now, 'fill': 'x' * EACH_BYTES}, queue_name='small')
                posted += 1
            elif self.floods <= (now - began) * FLOODS_PER_SECOND:
                post(rest, {'number': self.floods, 'fill': 'x' * FLOOD_BYTES}, queue_name='flood')
                self.floods += 1
            else:
                time.sleep(0.002)
        eventually(lambda: len(self.latencies) == posted * len(self), within=60)
        quantiles = statistics.quantiles(self.latencies, n=100)
        others, flood = (
            count * size / seconds / MB
            for count, size in ((len(self.latencies), EACH_BYTES), (self.floods, FLOOD_BYTES))
        )
        print(f'{len(self)} are pushed {others:.1f} MB/s, and the flood is {flood:.1f} MB/s:')
        print(f'p50 {1000 * quantiles[49]:.1f}, p99 {1000 * quantiles[98]:.1f} ms')
        return quantiles[98]


class Hall(NamedTuple):
    """A server with an audience, and somebody who posts to it."""

    server: ServerProcess
    audience: Audience
    rest: RestCaller

    @contextlib.contextmanager
    def who_does_not_read(self, dialect: Dialect) -> Iterator[Subscriber]:
        """A subscriber to the flood that reads nothing, and has the system receive little."""
        more = {'identity': self.rest.identity, 'receive_buffer': 4096}
        with Subscriber(self.server.port, dialect, **more) as client:
            client.subscribe('flood')
            yield client


@contextlib.contextmanager
def hall(directory: pathlib.Path, count: int) -> Iterator[Hall]:
    identity = new_identity()
    with (
        ServerProcess(directory, config=CONFIG) as server,
        Audience(server.port, identity, count) as audience,
    ):
        yield Hall(server, audience, RestCaller(server.url, identity=identity))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_does_not_read_costs_the_others_nothing(tmp_path: pathlib.Path) -> None:
    """Neither memory nor time: the best of some tries, for machines have other things to do."""
    without, beside = [], []
    with hall(tmp_path, CROWD) as busy, LightLoad(busy.server.port) as load:
        busy.audience.p99_of(2, busy.rest)
        for _ in range(TRIES):
            without.append(busy.audience.p99_of(5, busy.rest))
            peak = Peak(busy.server.pid)
            with busy.who_does_not_read(DEFAULT), busy.who_does_not_read(COMPACT):
                beside.append(busy.audience.p99_of(5, busy.rest))
            print(f'the server has grown by {peak.growth / MB:.1f} MB at most')
            assert peak.growth < 20 * MB
    assert min(beside) < 1.5 * min(without)
    assert load.p99 < PROMPT


def test_who_does_not_read_is_paused_or_given_up(tmp_path: pathlib.Path) -> None:
    with hall(tmp_path, FEW) as busy:
        _, audience, rest = busy
        with busy.who_does_not_read(DEFAULT) as default, busy.who_does_not_read(COMPACT) as compact:
            for number in range(FLOODS):
                post(rest, {'number': number, 'fill': 'x' * FLOOD_BYTES}, queue_name='flood')
            post(rest, {'posted_at': time.monotonic()}, queue_name='small')
            eventually(lambda: len(audience.latencies) == FEW)
            seen, paused = numbers_until_paused(compact)
            assert paused['subscription_id'] == compact.subscription_id
            assert 0 < len(seen) < FLOODS
            assert numbers_until_closed(default) == list(range(len(seen)))
            target = {'subscription_id': compact.subscription_id}
            assert compact.call('subscription_resume', **target).status == 204
            post(rest, {'number': 'last'}, queue_name='flood')
            while seen[-1:] != ['last']:
                seen.append(compact.body_of(compact.push())['number'])
            assert seen == [*range(FLOODS), 'last']


def numbers_until_paused(client: Subscriber) -> tuple[list[Any], Any]:
    """What a client that reads again is pushed, up to the pause; and that."""
    seen, markers = [], [None]
    while (push := client.push())['push'] != 'paused':
        seen.append(push['message']['body']['number'])
        markers.append(push['marker'])
    assert push['marker'] == markers[-1]
    return seen, push


def numbers_until_closed(client: Subscriber) -> list[Any]:
    """The same for a client whose connection is closed instead."""
    seen = []
    while (received := client.receive()).opcode == client.dialect.opcode:
        seen.append(client.dialect.decode(received.payload)['body']['number'])
    assert int.from_bytes(received.payload[:2]) == TOO_SLOW
    return seen


@pytest.mark.slow
def test_rest_is_served_promptly_while_a_crowd_is_pushed_to(tmp_path: pathlib.Path) -> None:
    with hall(tmp_path, CROWD) as (server, audience, rest):
        with LightLoad(server.port) as load:
            for _ in range(3):
                bodies = [{'posted_at': time.monotonic()}] * 20
                post(rest, *bodies, queue_name='small')
            eventually(lambda: len(audience.latencies) == 60 * len(audience), within=30)
        assert load.p99 < PROMPT
