"""Servers whose Redis is stopped, restarted or paused while clients post, read and get pushes."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.callers import Identity, RestCaller, connect, new_identity
from tests.faults.client import COMPACT, DEFAULT
from tests.faults.light_load import LightLoad
from tests.functional.test_push import Subscriber, contents, eventually, post
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

KEPT = ('--appendonly', 'yes', '--appendfsync', 'always')
OUTAGE_SECONDS = 30
MOST_SECONDS = 10.0
"""In which a request is answered, whatever Redis does: it waits 1 s for an answer and 3 s for a
connection, and machines are busy."""
RECOVERY_SECONDS = 10.0
PUSH_SECONDS = 60
AT_ONCE = 10


class Request(NamedTuple):
    began: float
    seconds: float
    status: int


class Client(threading.Thread):
    """Posts messages, each until it is taken, and reads, over one transport.

    requests: what it has made. posted: the bodies that were acknowledged.
    """

    def __init__(self, server: ServerProcess, transport: str, identity: Identity) -> None:
        super().__init__(daemon=True)
        self.requests: list[Request] = []
        self.posted: list[str] = []
        self.is_over = False
        self._name = transport
        self._caller: Any = connect(transport, server.url, server.websocket_url)
        self._caller.identity = identity

    def run(self) -> None:
        for number in itertools.count():
            body = f'{self._name} {number}'
            message = {'body': body, 'ttl': 3600}
            arguments = {'queue_name': 'orders', 'messages': [message], 'post_id': body}
            while self._ask('message_post', **arguments) != 201:
                if self.is_over:
                    return
            self.posted.append(body)
            self._ask('message_list', queue_name='orders', echo=True, limit=1)
            if self.is_over:
                return
            time.sleep(0.01)

    def _ask(self, action: str, **arguments: Any) -> int:
        began = time.monotonic()
        status = int(self._caller.call(action, **arguments).status)
        self.requests.append(Request(began, time.monotonic() - began, status))
        return status


@contextlib.contextmanager
def stopped(redis: RedisProcess) -> Iterator[None]:
    redis.__exit__()
    yield
    redis.__enter__()


@contextlib.contextmanager
def crashed(redis: RedisProcess) -> Iterator[None]:
    redis.kill()
    redis.__enter__()
    yield


@contextlib.contextmanager
def paused(redis: RedisProcess) -> Iterator[None]:
    os.kill(redis.pid, signal.SIGSTOP)
    yield
    os.kill(redis.pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize('outage', [stopped, crashed, paused])
def test_redis_may_be_gone_for_some_time(
    outage: Callable[[RedisProcess], contextlib.AbstractContextManager[None]],
    tmp_path: pathlib.Path,
) -> None:
    with (
        RedisProcess(tmp_path, *KEPT) as redis,
        ServerProcess(tmp_path, config=ON_REDIS.format(redis=redis.uri)) as server,
    ):
        identity = new_identity()
        clients = [
            Client(server, transport, identity) for transport in ('rest', 'ws-json', 'v2-msgpack')
        ]
        for client in clients:
            client.start()
        eventually(lambda: all(len(client.posted) > 20 for client in clients))
        with LightLoad(server.port, '/v2/openapi.json') as light:
            began = time.monotonic()
            with outage(redis):
                time.sleep(OUTAGE_SECONDS)
            ended = time.monotonic()
            before = [len(client.posted) for client in clients]
            eventually(
                lambda: all(
                    len(client.posted) > count + 5
                    for client, count in zip(clients, before, strict=True)
                ),
                within=RECOVERY_SECONDS,
            )
        for client in clients:
            client.is_over = True
            client.join(MOST_SECONDS)
        requests = [one for client in clients for one in client.requests]
        refused = [one for one in requests if one.status == 503]
        again = min(
            one.began + one.seconds for one in requests if one.status < 300 and one.began > ended
        )
        meanwhile = [one for one in requests if began < one.began < ended]
        print(
            f'{outage.__name__}: {len(meanwhile)} requests meanwhile, {len(refused)} answered with '
            f'503, the longest after {max(one.seconds for one in requests):.1f} s; served again '
            f'{again - ended:.2f} s after the end; other requests: p99 {light.p99 * 1000:.0f} ms'
        )
        assert {one.status for one in requests} <= {200, 201, 503}
        assert max(one.seconds for one in requests) < MOST_SECONDS
        if outage is not crashed:
            assert refused
        rest = RestCaller(server.url, identity=identity)
        stored = [message['body'] for message in contents(rest)]
        assert len(stored) == len(set(stored))
        assert {body for client in clients for body in client.posted} <= set(stored)


class Poster(threading.Thread):
    """Posts numbers to servers in turn, each post until it is taken."""

    def __init__(
        self, servers: list[ServerProcess], identity: Identity, numbers: range, name: str
    ) -> None:
        super().__init__(daemon=True)
        self._callers = [RestCaller(server.url, identity=identity) for server in servers]
        self._numbers, self._name = numbers, name
        self.done = 0

    def run(self) -> None:
        turns = itertools.cycle(self._callers)
        for start in range(self._numbers.start, self._numbers.stop, AT_ONCE):
            messages = [{'body': start + number, 'ttl': 3600} for number in range(AT_ONCE)]
            post_id = f'{self._name}-{start}'
            arguments = {'queue_name': 'orders', 'messages': messages, 'post_id': post_id}
            while next(turns).call('message_post', **arguments).status != 201:
                time.sleep(0.01)
            self.done += AT_ONCE


def read(subscriber: Subscriber, total: int, is_over: threading.Event) -> list[Any]:
    """The bodies that a subscriber is pushed, after which nothing comes until all is over.

    It reads all the time: a server gives up a client that does not answer its pings.
    """
    bodies = subscriber.bodies(total)
    while not is_over.wait(1.0):
        assert subscriber.has_nothing_more()
    assert subscriber.has_nothing_more()
    return bodies


@pytest.mark.parametrize('total', [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_everything_is_pushed_once_and_in_order_while_redis_restarts(
    total: int, tmp_path: pathlib.Path
) -> None:
    """By two servers on one Redis."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisProcess(tmp_path, *KEPT))
        config = ON_REDIS.format(redis=redis.uri)
        servers = [
            stack.enter_context(ServerProcess(tmp_path / name, config=config))
            for name in ('one', 'other')
        ]
        identity = new_identity()
        rest = RestCaller(servers[0].url, identity=identity)
        [first] = post(rest, 'first')
        subscribers = []
        for server in servers:
            for dialect in (DEFAULT, COMPACT):
                subscriber = Subscriber(server.port, dialect, identity=identity)
                stack.enter_context(subscriber)
                subscriber.subscribe(marker=first)
                subscriber.socket.settimeout(PUSH_SECONDS)
                subscribers.append(subscriber)
        is_over = threading.Event()
        pool = stack.enter_context(ThreadPoolExecutor(len(subscribers)))
        stack.callback(is_over.set)
        pushed = [pool.submit(read, subscriber, total, is_over) for subscriber in subscribers]
        half = total // 2
        posters = [
            Poster(servers, identity, range(half), 'a'),
            Poster(servers[::-1], identity, range(half, total), 'b'),
        ]
        for poster in posters:
            poster.start()
        eventually(lambda: sum(poster.done for poster in posters) > total / 4)
        redis.__exit__()
        stack.enter_context(redis)
        for poster in posters:
            poster.join(PUSH_SECONDS)
        stored = [message['body'] for message in contents(rest)[1:]]
        assert sorted(stored) == list(range(total))
        is_over.set()
        for bodies in pushed:
            assert bodies.result() == stored
