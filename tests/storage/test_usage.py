"""What projects have, from counters that every change keeps right."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from tests.storage.conftest import CLIENT, Store
from zaqar_gevent.storage.interface import Usage
from zaqar_gevent.storage.stores import stores_of

COUNTING = ('sqlite', 'unshared', 'postgresql')


class Project:
    """A project of a store, whose bytes are counted."""

    def __init__(self, store: Store) -> None:
        usage = stores_of(store.data, store.control).usage
        assert usage is not None
        self.id = uuid.uuid4().hex
        self.store = store
        self._usage = usage
        usage.begin(lambda project: True)

    def usage(self) -> Usage:
        return self._usage.get(self.id)

    @property
    def bytes(self) -> int:
        return self.usage().bytes

    def begin(self) -> None:
        self._usage.begin(lambda project: True)

    def queue(self, **metadata: Any) -> str:
        name = uuid.uuid4().hex
        assert self.store.queues.create(name, metadata=metadata, project=self.id)
        return name

    def post(self, queue: str, *bodies: Any, **more: Any) -> list[str]:
        new = [{'ttl': 300, 'body': body, **more} for body in bodies]
        ids = self.store.messages.post(queue, new, CLIENT, project=self.id)
        return [str(one) for one in ids]

    def collect(self) -> None:
        """Have what expired, or is left of deleted queues, removed."""
        self.store.data._storage.gc()

    def wait_for(self, expected: int) -> None:
        ends = time.monotonic() + 60
        while self.bytes != expected:
            assert time.monotonic() < ends, (self.bytes, expected)
            time.sleep(0.02)


@pytest.fixture
def project(store: Store) -> Project:
    if store.name not in COUNTING:
        assert stores_of(store.data, store.control).usage is None
        pytest.skip('it does not count')
    return Project(store)


def test_bytes_are_those_of_what_is_stored(project: Project) -> None:
    queue = project.queue()
    assert project.usage() == (0, 0)
    first, *_ = project.post(queue, 'x' * 100, 'y' * 20_000)
    both = project.bytes
    assert 20_100 <= both <= 20_120
    project.post(queue, 1, attributes={'a': 'b' * 50})
    assert 50 <= project.bytes - both <= 70
    project.post(queue, 'z' * 1000, delay=60)
    assert 1050 <= project.bytes - both <= 1100
    before = project.bytes
    project.store.messages.delete(queue, first, project=project.id)
    assert 100 <= before - project.bytes <= 110


@pytest.mark.parametrize('size', [100, 20_000])
def test_what_is_removed_is_not_counted(project: Project, size: int) -> None:
    store, body = project.store, 'x' * size
    queue, other = project.queue(), project.queue()
    project.post(other, 1)
    kept = project.bytes
    ids = project.post(queue, *[body] * 8)
    own = (project.bytes - kept) // 8
    store.messages.bulk_delete(queue, ids[:1], project=project.id)
    assert project.bytes == kept + 7 * own
    assert len(list(store.messages.pop(queue, 1, project=project.id))) == 1
    assert project.bytes == kept + 6 * own
    claim, held = store.claims.create(queue, {'ttl': 60, 'grace': 60}, limit=2, project=project.id)
    found = list(held)
    assert project.bytes == kept + 6 * own
    store.messages.delete(queue, found[0]['id'], project=project.id, claim=claim)
    assert project.bytes == kept + 5 * own
    store.data.message_controller.purge(queue, project=project.id)
    assert project.bytes == kept + own
    store.claims.delete(queue, claim, project=project.id)
    project.post(queue, body)
    store.queues.delete(queue, project=project.id)
    project.collect()
    project.wait_for(kept)


def test_what_has_expired_is_not_counted(project: Project) -> None:
    store, queue = project.store, project.queue()
    project.post(queue, 1)
    kept = project.bytes
    project.post(queue, 'x' * 50, 'y' * 50, ttl=100)
    project.post(queue, 'z' * 50, ttl=100, delay=50)
    counted = project.bytes
    _, held = store.claims.create(queue, {'ttl': 200, 'grace': 0}, limit=2, project=project.id)
    assert [one['body'] for one in held] == [1, 'x' * 50]
    with store.later(150):
        project.collect()
        # A claim makes its messages live longer.
        project.wait_for(kept + (counted - kept) // 3)
    with store.later(400):
        project.collect()
        project.wait_for(0)


def test_dead_letters_and_what_is_put_back_are_counted_once(project: Project) -> None:
    store = project.store
    dead = project.queue()
    queue = project.queue(_dead_letter_queue=dead, _max_claim_count=1)
    project.post(queue, 'x' * 50, 'y' * 20_000)
    counted = project.bytes
    claim, _ = store.claims.create(queue, {'ttl': 60, 'grace': 0}, project=project.id)
    store.claims.delete(queue, claim, project=project.id)
    store.claims.create(queue, {'ttl': 60, 'grace': 0}, project=project.id)
    moved = list(next(store.messages.list(dead, project=project.id, echo=True)))
    assert len(moved) == 2
    assert counted <= project.bytes <= counted + (200 if store.name == 'unshared' else 0)
    popped = list(store.messages.pop(dead, 2, project=project.id))
    assert project.bytes == 0
    store.messages.restore(dead, popped, project=project.id)
    assert counted <= project.bytes <= counted + 400
    store.queues.delete(dead, project=project.id)
    project.collect()
    project.wait_for(0)


def test_bytes_of_many_messages_are_counted(project: Project) -> None:
    queue = project.queue()
    project.post(queue, 1)
    own = project.bytes
    ids = [id_ for _ in range(10) for id_ in project.post(queue, *[1] * 100)]
    assert project.bytes == 1001 * own
    for start in range(0, len(ids), 100):
        project.store.messages.bulk_delete(queue, ids[start : start + 100], project=project.id)
    assert project.bytes == own


def test_subscriptions_are_counted(project: Project) -> None:
    subscriptions = project.store.subscriptions
    queues = [project.queue(), project.queue()]
    made = [
        subscriptions.create(queue, f'http://a.example/{number}', 100, {}, project=project.id)
        for queue in queues
        for number in range(3)
    ]
    assert project.usage().subscriptions == 6
    again = subscriptions.create(queues[0], 'http://a.example/0', 100, {}, project=project.id)
    assert again is None
    assert project.usage().subscriptions == 6
    subscriptions.delete(queues[0], made[0], project=project.id)
    subscriptions.delete(queues[0], made[0], project=project.id)
    assert project.usage().subscriptions == 5
    subscriptions.update(queues[0], made[1], project=project.id, ttl=1000)
    with project.store.later(500):
        project.collect()
        assert project.usage().subscriptions == 1


def test_queues_are_counted(project: Project) -> None:
    queues, names = project.store.queues, [project.queue() for _ in range(3)]
    assert not queues.create(names[0], project=project.id)
    assert queues.calculate_resource_count(project=project.id) == 3
    queues.delete(names[0], project=project.id)
    queues.delete(names[0], project=project.id)
    assert queues.calculate_resource_count(project=project.id) == 2


def test_to_begin_again_does_no_harm(project: Project) -> None:
    queue = project.queue()
    project.post(queue, 'x', delay=60)
    project.post(queue, 'x')
    project.store.subscriptions.create(queue, 'http://a.example', 100, {}, project=project.id)
    before = project.usage()
    project.begin()
    assert project.usage() == before
