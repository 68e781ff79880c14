"""The order within groups is kept while servers and workers are killed."""

from __future__ import annotations

import collections
import itertools
import pathlib
import threading

import pytest
import requests

from tests.callers import RestCaller, new_identity
from tests.server_process import ServerProcess

QUEUE = {'queue_name': 'orders'}
WORKERS = 4
LOST_CONNECTION = (OSError, requests.RequestException)


class Workers:
    """Workers on a queue that claim some messages and acknowledge one after the other.

    done: of each group the messages that a worker had, as they came.
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

    def run(self, url: str) -> None:
        caller = RestCaller(url, identity=self._identity)  # type: ignore[arg-type]
        try:
            while not self._is_over:
                claimed = caller.call('claim_create', **QUEUE, ttl=3600, grace=60, limit=3)
                if claimed.status != 201:
                    return
                for message in claimed.body['messages']:
                    self._work(caller, claimed.body['claim_id'], message)
        except LOST_CONNECTION:
            return
        finally:
            caller.close()

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

    def start(self, url: str) -> list[threading.Thread]:
        threads = [threading.Thread(target=self.run, args=(url,)) for _ in range(WORKERS)]
        for one in threads:
            one.start()
        return threads

    def stop(self) -> None:
        self._is_over = True


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


@pytest.mark.parametrize(
    ('kills', 'each'), [(1, 40), pytest.param(10, 300, marks=pytest.mark.slow)]
)
def test_groups_stay_in_order_when_servers_are_killed(
    tmp_path: pathlib.Path, kills: int, each: int
) -> None:
    identity = new_identity()
    # Claims that end with their servers hold up their groups: at most that many for each kill.
    held_up = 3 * WORKERS
    groups, left = held_up * (kills + 2), 2 * held_up
    workers = Workers(identity)
    for kill in range(kills):
        server = ServerProcess(tmp_path)
        server.start()
        if not kill:
            fill(RestCaller(server.url, identity=identity), groups, each * (kills + 1) // left + 2)
        threads = workers.start(server.url)
        is_reached = workers.wait_for(workers.count + each)
        server.kill()
        for one in threads:
            one.join()
        assert is_reached
    with ServerProcess(tmp_path) as server:
        threads = workers.start(server.url)
        is_reached = workers.wait_for(workers.count + each)
        workers.stop()
        for one in threads:
            one.join()
    assert is_reached
    check(workers)
