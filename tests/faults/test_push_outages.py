"""Stores that fail for some time while clients are pushed to."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest

from tests.callers import Identity, RestCaller
from tests.faults.client import COMPACT, DEFAULT
from tests.functional.test_consumers import Worker, stats
from tests.functional.test_push import Subscriber, contents, eventually, post
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess

# redis-py tries each call again for some seconds, and a post makes several.
REDIS_SECONDS = 60


class Persistent(threading.Thread):
    """Posts messages one after the other, each until it is taken.

    refused: how many times one was not. posted: how many messages were.
    """

    def __init__(self, url: str, identity: Identity) -> None:
        super().__init__(daemon=True)
        self.refused = self.posted = 0
        self.is_over = False
        self._caller = RestCaller(url, identity=identity)

    def run(self) -> None:
        while not self.is_over:
            messages = [{'body': self.posted, 'ttl': 300}]
            status, _ = self._caller.call('message_post', queue_name='orders', messages=messages)
            if status == 201:
                self.posted += 1
            else:
                self.refused += 1
            time.sleep(0.01)


@contextlib.contextmanager
def an_outage(server: ServerProcess, marker: str, identity: Identity) -> Iterator[Persistent]:
    """Subscribers and a poster before, during and after an outage, which is the caller's."""
    with contextlib.ExitStack() as stack:
        default = stack.enter_context(Subscriber(server.port, DEFAULT, identity=identity))
        default.subscribe(marker=marker)
        compact = stack.enter_context(Subscriber(server.port, COMPACT, identity=identity))
        compact.subscribe(marker=marker)
        for client in (default, compact):
            client.socket.settimeout(REDIS_SECONDS)
        poster = Persistent(server.url, identity)
        poster.start()
        eventually(lambda: poster.posted > 20)
        yield poster
        again = poster.posted + 20
        eventually(lambda: poster.posted > again, within=REDIS_SECONDS)
        poster.is_over = True
        poster.join()
        rest = RestCaller(server.url, identity=identity)
        stored = contents(rest)[1:]
        assert compact.bodies(len(stored)) == [message['body'] for message in stored]
        assert default.bodies(len(stored)) == [message['body'] for message in stored]
        assert compact.has_nothing_more()
        assert default.has_nothing_more()
        assert {message['body'] for message in stored} == set(range(poster.posted))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_file_that_is_locked_for_some_time_costs_no_message(tmp_path: pathlib.Path) -> None:
    """The file of the store, longer than the server waits; leases are kept and settled after."""
    with ServerProcess(tmp_path) as server, Worker(server.port) as worker:
        rest = RestCaller(server.url, identity=worker.identity)
        [first] = post(rest, 'first')
        post(rest, *range(10), queue_name='work')
        worker.consume('work', credit=10)
        held = worker.messages(10)
        with an_outage(server, first, worker.identity) as poster:
            lock = sqlite3.connect(tmp_path / 'zaqar.sqlite', isolation_level=None)
            lock.execute('BEGIN IMMEDIATE')
            worker.socket.settimeout(60)
            assert worker.settle('message_ack', *held[:5]) == 503
            eventually(lambda: poster.refused > 0, within=30)
            lock.execute('ROLLBACK')
            lock.close()
            worker.ack(*held[:5])
            worker.release(*held[5:])
            assert len(worker.messages(5)) == 5
            assert stats(rest, 'work') == (0, 5)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_redis_that_is_gone_for_some_time_costs_no_message(tmp_path: pathlib.Path) -> None:
    redis = RedisProcess(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(redis)
        patience = 'max_reconnect_attempts = 2\nreconnect_sleep = 0.1\n'
        uri = f'uri = {redis.patient_uri}\n'
        config = ON_REDIS.format(redis=redis.patient_uri).replace(uri, uri + patience)
        server = stack.enter_context(ServerProcess(tmp_path, config=config))
        worker = stack.enter_context(Worker(server.port))
        rest = RestCaller(server.url, identity=worker.identity)
        [first] = post(rest, 'first')
        worker.consume('work', credit=2)
        with an_outage(server, first, worker.identity) as poster:
            redis.client.shutdown(save=True)
            eventually(lambda: poster.refused > 0, within=REDIS_SECONDS)
            redis.__exit__()
            stack.enter_context(redis)
            eventually(lambda: rest.call('ping_node').status == 204, within=REDIS_SECONDS)
        post(rest, *range(2), queue_name='work')
        worker.ack(*worker.messages(2))
        assert stats(rest, 'work') == (0, 0)
