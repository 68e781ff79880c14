"""What a message carries beside its body, in the stores that keep it."""

from __future__ import annotations

import pytest

from tests.storage.conftest import Store
from zaqar_gevent.storage.features import Feature

ATTRIBUTES = {'type': 'order', 'note': 'ä"\\ \u2028'}


@pytest.fixture(autouse=True)
def capable(store: Store) -> None:
    if Feature.ATTRIBUTES not in store.features.offered:
        pytest.skip('the store does not keep attributes, as it declares')


def test_attributes_are_kept_in_lists_claims_and_pops(store: Store) -> None:
    queue = store.queue()
    store.post(queue, 1, attributes=ATTRIBUTES)
    store.post(queue, 2)
    expected = [ATTRIBUTES, None]
    listed = next(store.messages.list(queue, echo=True))
    assert [one.get('attributes') for one in listed] == expected
    claim_id, claimed = store.claim(queue)
    assert [one.get('attributes') for one in claimed] == expected
    store.claims.delete(queue, claim_id)
    popped = list(store.messages.pop(queue, 2))
    assert [one.get('attributes') for one in popped] == expected
    store.messages.restore(queue, popped)
    listed = next(store.messages.list(queue, echo=True))
    assert [one.get('attributes') for one in listed] == expected
    assert store.messages.first(queue)['attributes'] == ATTRIBUTES


def test_a_post_of_many_messages_keeps_each_one_s(store: Store) -> None:
    queue = store.queue()
    new = [
        {'ttl': 300, 'body': number, **({'attributes': {'n': str(number)}} if number % 3 else {})}
        for number in range(100)
    ]
    store.messages.post(queue, new, None)
    listed = next(store.messages.list(queue, echo=True, limit=100))
    assert [(one['body'], one.get('attributes')) for one in listed] == [
        (one['body'], one.get('attributes')) for one in new
    ]
