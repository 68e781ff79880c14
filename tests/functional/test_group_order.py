"""The order within groups is kept while servers and workers are killed."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import pathlib
import threading
import uuid

import pytest
import requests

from tests.callers import RestCaller, new_identity
from tests.postgres_process import ON_POSTGRESQL, PostgresProcess
from tests.server_process import ServerProcess

QUEUE = {'queue_name': 'orders'}
WORKERS = 4
# Servers are started ten times, on a machine that may be busy.
LONG = (pytest.mark.slow, pytest.mark.timeout(1200))
LOST_CONNECTION = (OSError, requests.RequestException)


class Workers:
    """Workers on a queue that claim some messages and acknowledge one after the other.

    done: of each group the messages that a worker had, as they came. allowed: how many they may
    have before they wait.
    """

    def __init__(self, identity: object) -> None:
        self._identity = identity
        self._active: set[str] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_over = False
        self.done: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
        self.failures: list[str] = []
        self.count = 0
        self.allowed: float = math.inf
        self._gone: set[str] = set()

    def run(self, url: str) -> None:
        caller = RestCaller(url, identity=self._identity)  # type: ignore[arg-type]
        try:
            while self._may_go_on(url):
                claimed = caller.call('claim_create', **QUEUE, ttl=3600, grace=60, limit=3)
                if claimed.status != 201:
                    return
                for message in claimed.body['messages']:
                    self._work(caller, claimed.body['claim_id'], message)
        except LOST_CONNECTION:
            return
        finally:
            caller.close()

    def _may_go_on(self, url: str) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or url in self._gone or self.count < self.allowed
            )
            return not self._is_over and url not in self._gone

    def _work(self, caller: RestCaller, claim_id: str, message: dict[str, object]) -> None:
        group, number = str(message['body']).split()
        with self._changed:
            if group in self._active:
                self.failures.append(f'two workers had {group}')
            self._active.add(group)
            self.done[group].append(int(number))
            self.count += 1
            self._changed.notify_all()
        with self._lock:
            # The server gives the group to others before it answers that the message is deleted.
            self._active.discard(group)
        caller.call('message_delete', **QUEUE, message_id=message['id'], claim_id=claim_id)

    def wait_for(self, count: int, seconds: float = 120) -> bool:
        """Wait until they have had so many messages."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, seconds)

    def start(self, url: str, count: int) -> list[threading.Thread]:
        self._gone.discard(url)
        threads = [threading.Thread(target=self.run, args=(url,)) for _ in range(count)]
        for one in threads:
            one.start()
        return threads

    def allow(self, count: int) -> None:
        """Let them have so many messages."""
        with self._changed:
            self.allowed = count
            self._changed.notify_all()

    def leave(self, url: str) -> None:
        """The workers of a server end: it was killed."""
        with self._changed:
            self._gone.add(url)
            self._changed.notify_all()

    def stop(self) -> None:
        """They end after what they have now."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def fill(caller: RestCaller, groups: int, count: int) -> None:
    """Post so many messages to each of the groups."""
    setting = {'_ordered_groups': True}
    assert caller.call('queue_create', **QUEUE, metadata=setting).status == 201
    for number in range(count):
        for first in range(0, groups, 20):
            messages = [
                {'body': f'g{group} {number}', 'ttl': 7200, 'group': f'g{group}'}
                for group in range(first, min(first + 20, groups))
            ]
            assert caller.call('message_post', **QUEUE, messages=messages).status == 201
    caller.close()


def check(workers: Workers) -> None:
    assert not workers.failures
    for group, numbers in workers.done.items():
        # A message comes again if it is not known to be acknowledged; none comes before its turn.
        assert [*dict.fromkeys(numbers)] == [*range(max(numbers) + 1)], group
        assert all(after - before <= 1 for before, after in itertools.pairwise(numbers))


@pytest.mark.parametrize(('kills', 'each'), [(1, 40), pytest.param(10, 300, marks=LONG)])
def test_groups_stay_in_order_when_servers_are_killed(
    tmp_path: pathlib.Path, kills: int, each: int
) -> None:
    check_order([ServerProcess(tmp_path)], kills, each, WORKERS)


@pytest.mark.parametrize(
    ('kills', 'each', 'workers'), [(1, 40, 3), pytest.param(10, 300, 8, marks=LONG)]
)
def test_groups_of_two_servers_stay_in_order_when_one_is_killed(
    postgres: PostgresProcess, tmp_path: pathlib.Path, kills: int, each: int, workers: int
) -> None:
    config = ON_POSTGRESQL.format(uri=postgres.uri, schema=f'zaqar_{uuid.uuid4().hex}')
    servers = [ServerProcess(tmp_path / name, config=config) for name in ('one', 'other')]
    check_order(servers, kills, each, workers)


def check_order(servers: list[ServerProcess], kills: int, each: int, of_each: int) -> None:
    """Have one server after the other killed while the workers of all of them work.

    each: messages between two kills.
    """
    identity = new_identity()
    # Claims that end with their servers hold up their groups: at most that many for each kill.
    held_up = 3 * of_each
    groups, left = held_up * (kills + 2) * len(servers), 2 * held_up
    workers = Workers(identity)
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        messages = each * (kills + 3) // left + 2
        fill(RestCaller(servers[0].url, identity=identity), groups, messages)
        threads = [workers.start(server.url, of_each) for server in servers]
        for kill in range(kills):
            # They go on while a server is killed, but not until nothing is left.
            workers.allow((kill + 2) * each)
            is_reached = workers.wait_for((kill + 1) * each)
            killed = kill % len(servers)
            servers[killed].kill()
            workers.leave(servers[killed].url)
            for one in threads[killed]:
                one.join()
            assert is_reached
            servers[killed].start()
            threads[killed] = workers.start(servers[killed].url, of_each)
        workers.allow((kills + 1) * each)
        is_reached = workers.wait_for((kills + 1) * each)
        workers.stop()
        for one in itertools.chain(*threads):
            one.join()
        assert is_reached
    check(workers)
