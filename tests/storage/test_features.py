"""What each driver declares that it can do is what it does, on every store.

Each test asks the store for the feature and checks both cases: that a declared feature works, and
that a feature which is not declared does not.
"""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from typing import Any

import gevent
import pytest
from zaqar.storage import errors

from tests.storage.conftest import CLIENT, PROJECT, Store
from zaqar_gevent.bodies import Body, Encoding
from zaqar_gevent.storage.features import Feature, MarkerKind, StoreFeatures
from zaqar_gevent.storage.moves import MoveRefused
from zaqar_gevent.storage.pooled_queues import own_driver
from zaqar_gevent.storage.records import QueueRecord
from zaqar_gevent.storage.stores import features_of, stores_of

UNABLE = (AttributeError, NotImplementedError)


@pytest.fixture
def features(store: Store) -> StoreFeatures:
    return features_of(store.data)


def page_marker(store: Store, queue: str) -> str:
    """The marker of a page of one message."""
    results = store.data.message_controller.list(queue, project=PROJECT, limit=1, echo=True)
    assert len(list(next(results))) == 1
    return str(next(results))


def test_every_feature_has_a_test() -> None:
    named = {
        name.removeprefix('test_').removeprefix('feature_')
        for name in globals()
        if name.startswith('test_feature_')
    }
    assert named == {field.name for field in dataclasses.fields(StoreFeatures)}


def test_feature_markers(store: Store, features: StoreFeatures) -> None:
    queue = store.queue()
    first, _ = store.post(queue, 1, 2)
    marker = page_marker(store, queue)
    assert re.fullmatch(features.markers.value, marker)
    messages = store.data.message_controller
    if features.markers is MarkerKind.POSITION:
        end = messages.end(queue, PROJECT)
        assert re.fullmatch(features.markers.value, end)
        assert store.list(queue, marker=end) == []
    else:
        assert marker == first
        with pytest.raises(UNABLE):
            messages.end(queue, PROJECT)


def test_feature_post_id_seconds(store: Store, features: StoreFeatures) -> None:
    queue = store.queue()
    ids = [store.post(queue, 'x', post_id='p') for _ in range(2)]
    assert (ids[0] == ids[1]) == bool(features.post_id_seconds)


def test_feature_checks_queues(store: Store, features: StoreFeatures) -> None:
    if features.checks_queues:
        with pytest.raises(errors.QueueDoesNotExist):
            store.post('nowhere', 'x')
    else:
        assert store.post('nowhere', 'x')


def test_feature_carries_bodies(store: Store, features: StoreFeatures) -> None:
    """A store that carries bodies keeps the bytes; another keeps the value."""
    queue = store.queue()
    sent = b'{ "a" : 1 }'
    message = {'ttl': 300, 'body': Body(Encoding.JSON, sent)}
    [message_id] = store.data.message_controller.post(queue, [message], CLIENT, project=PROJECT)
    found = store.data.message_controller.get(queue, message_id, project=PROJECT)['body']
    assert found.value == {'a': 1}
    driver = store.data
    while hasattr(driver, '_storage'):
        driver = driver._storage
    assert getattr(driver, 'carries_bodies', False) is features.carries_bodies


def test_feature_restores(store: Store, features: StoreFeatures) -> None:
    queue = store.queue()
    store.post(queue, 1, 2)
    popped = store.messages.pop(queue, 1)
    if features.restores:
        store.messages.restore(queue, popped)
        assert store.list(queue) == [1, 2]
    else:
        with pytest.raises(UNABLE):
            store.messages.restore(queue, popped)


def test_feature_keeps_places(store: Store, features: StoreFeatures) -> None:
    queue = store.queue()
    first, _ = store.post(queue, 1, 2)
    messages = store.data.message_controller
    if not features.keeps_places:
        with pytest.raises(UNABLE):
            messages.keeps_place(queue, first, PROJECT)
        return
    messages.delete(queue, first, project=PROJECT)
    if messages.keeps_place(queue, first, PROJECT):
        assert store.list(queue, marker=first) == [2]


def test_feature_counts_usage(store: Store, features: StoreFeatures) -> None:
    usage = stores_of(store.data, store.control).usage
    if not features.counts_usage:
        assert usage is None
        return
    assert usage is not None
    usage.begin(lambda project: True)
    own = store.of(uuid.uuid4().hex)
    own.post(own.queue(), 'x' * 50)
    assert usage.get(own.project).bytes >= 50


def test_feature_finds_claimable(store: Store, features: StoreFeatures) -> None:
    empty, full = store.queue(), store.queue()
    store.post(full, 1)
    wanted = [(PROJECT, empty), (PROJECT, full)]
    if features.finds_claimable:
        assert store.data.claim_controller.find_claimable(wanted) == [1]
    else:
        with pytest.raises(UNABLE):
            store.data.claim_controller.find_claimable(wanted)


def test_feature_counts_subscriptions(store: Store, features: StoreFeatures) -> None:
    queue = store.queue()
    store.subscriptions.create(queue, 'http://example.org', 300, {})
    if features.counts_subscriptions:
        assert store.subscriptions.count(queue) == 1
    else:
        with pytest.raises(UNABLE):
            store.subscriptions.count(queue)


def test_feature_reports_due(store: Store, features: StoreFeatures) -> None:
    driver: Any = store.data
    while hasattr(driver, '_storage'):
        driver = driver._storage
    queue = store.queue()
    reported: list[tuple[str | None, str]] = []
    if not features.reports_due:
        with pytest.raises(UNABLE):
            driver.listen(lambda *due: reported.append(due[:2]))
        return
    driver.listen(lambda *due: reported.append(due[:2]))
    store.post(queue, 1, delay=1)
    deadline = time.monotonic() + 20
    while (PROJECT, queue) not in reported:
        assert time.monotonic() < deadline
        gevent.sleep(0.05)


def test_feature_is_local(store: Store, features: StoreFeatures) -> None:
    """A store that others reach has a server; the embedded one has only a file."""
    driver: Any = store.data
    while hasattr(driver, '_storage'):
        driver = driver._storage
    has_server = hasattr(driver, 'server') or hasattr(driver, 'connection')
    assert has_server is not features.is_local


def test_feature_bounds_reads(store: Store, features: StoreFeatures) -> None:
    """The limit of the server's option reaches the store."""
    driver: Any = store.data
    while hasattr(driver, '_storage'):
        driver = driver._storage
    assert hasattr(driver, 'database') is features.bounds_reads


def test_feature_offered(store: Store, features: StoreFeatures) -> None:
    """What is offered is kept. A store may keep more, which upstream's servers would lose."""
    queue = store.queue()
    [message_id] = store.post(queue, 'x', attributes={'type': 'order'})
    found = store.messages.get(queue, message_id)
    if Feature.ATTRIBUTES in features.offered:
        assert found['attributes'] == {'type': 'order'}


def test_feature_remedy(store: Store, features: StoreFeatures) -> None:
    is_shared = store.name in ('native', 'valkey')
    assert ('shared_with_upstream = false' in features.remedy) == is_shared


def test_feature_has_exact_stats(store: Store, features: StoreFeatures) -> None:
    queue = store.queue()
    store.post(queue, 'soon', ttl=60)
    store.post(queue, 'late', ttl=3600)
    if features.has_exact_stats:
        with store.later(61):
            assert store.counts(queue) == (0, 1)


def test_feature_counts_messages(store: Store, features: StoreFeatures) -> None:
    """The count is right with each post and deletion, so that a limit can be checked by it."""
    queue = store.queue()
    ids = store.post(queue, *range(3))
    if features.counts_messages:
        assert store.counts(queue) == (0, 3)
        store.messages.delete(queue, ids[0])
        store.claim(queue, limit=1)
        assert store.counts(queue) == (1, 1)


def test_a_queue_leaves_only_a_store_that_can_hold_it_back(store: Store) -> None:
    own = own_driver(store.data)
    record = QueueRecord('queue', PROJECT, store.queue(), {})
    if own is None:
        assert store.name == 'upstream'
    elif store.name in ('native', 'valkey'):
        with pytest.raises(MoveRefused, match='shared_with_upstream = false'):
            own.leave(record)
    else:
        origin = own.leave(record)
        assert origin.get_mark() is None
        origin.close()
