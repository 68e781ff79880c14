"""The key by which the servers of a fleet know each other's URLs."""

from __future__ import annotations

import pytest

from zaqar_gevent.api.push import Source
from zaqar_gevent.push.fleet import Fleet

PLACE = 'http://10.0.0.1:4000/zaqar_gevent/push/0123456789abcdef'
ORDERS = Source('demo', 'orders')


class Store:
    """Keeps the key that it is given first. fails: whether it cannot be reached."""

    def __init__(self) -> None:
        self.key = ''
        self.loads = 0
        self.fails = False

    def load(self, new: str) -> str:
        self.loads += 1
        if self.fails:
            raise OSError('no store')
        self.key = self.key or new
        return self.key


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(store: Store, clock: Clock) -> Fleet:
    return Fleet(store.load, clock)


def test_a_server_knows_what_another_has_signed(store: Store, fleet: Fleet) -> None:
    url = Fleet(store.load).sign(PLACE, ORDERS)
    assert url.startswith(f'{PLACE}-')
    assert fleet.is_genuine(url, ORDERS)
    assert len(store.key) == 64


def test_nobody_knows_what_another_fleet_has_signed(fleet: Fleet) -> None:
    assert not fleet.is_genuine(Fleet(Store().load).sign(PLACE, ORDERS), ORDERS)


@pytest.mark.parametrize(
    'source',
    [
        Source('demo', 'other'),
        Source('other', 'orders'),
        Source(None, 'orders'),
        Source('', 'orders'),
    ],
)
def test_a_signature_counts_for_its_project_and_queue_only(fleet: Fleet, source: Source) -> None:
    assert not fleet.is_genuine(fleet.sign(PLACE, ORDERS), source)


def test_a_signature_counts_for_the_very_url(fleet: Fleet) -> None:
    url = fleet.sign(PLACE, ORDERS)
    signature = url.rpartition('-')[2]
    for other in (
        PLACE,
        f'{PLACE}-',
        url[:-1],
        f'{url}0',
        url.upper(),
        url.replace('10.0.0.1', '10.0.0.2'),
        url.replace('4000', '4001'),
        url.replace('0123', '0124'),
        f'{PLACE}-x-{signature}',
        f'{PLACE}-\u00df',
        signature,
        '',
    ):
        assert not fleet.is_genuine(other, ORDERS), other


def test_urls_that_look_alike_do_not_have_the_store_read_each_time(
    store: Store, fleet: Fleet, clock: Clock
) -> None:
    for number in range(100):
        assert not fleet.is_genuine(f'{PLACE}-{number}', ORDERS)
        assert not fleet.is_genuine(f'{PLACE}-0', ORDERS)
    assert store.loads == 1
    clock.now += 11
    assert not fleet.is_genuine(f'{PLACE}-0', ORDERS)
    assert store.loads == 2


def test_a_key_that_is_new_since_the_store_was_emptied_is_learnt(
    store: Store, fleet: Fleet, clock: Clock
) -> None:
    old = fleet.sign(PLACE, ORDERS)
    store.key = ''
    new = Fleet(store.load).sign(PLACE, ORDERS)
    assert not fleet.is_genuine(new, ORDERS)
    clock.now += 11
    assert fleet.is_genuine(new, ORDERS)
    assert fleet.is_genuine(old, ORDERS)
    assert fleet.sign(PLACE, ORDERS) == new


def test_a_key_that_is_lost_is_stored_again(store: Store, fleet: Fleet, clock: Clock) -> None:
    url = fleet.sign(PLACE, ORDERS)
    key, store.key = store.key, ''
    clock.now += 11
    assert not fleet.is_genuine(f'{PLACE}-0', ORDERS)
    assert store.key == key
    assert fleet.is_genuine(url, ORDERS)


def test_nothing_is_believed_while_the_store_cannot_be_read(
    store: Store, fleet: Fleet, clock: Clock
) -> None:
    url = Fleet(store.load).sign(PLACE, ORDERS)
    store.fails = True
    assert not fleet.is_genuine(url, ORDERS)
    store.fails = False
    assert fleet.is_genuine(url, ORDERS)
