"""Telling very many subscribers: others have their turn, and each hears of posts in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
from oslo_config import cfg

from zaqar_gevent import conf as configuration
from zaqar_gevent.api.loops import Loops
from zaqar_gevent.api.notifier import Notifier
from zaqar_gevent.api.push import Address, Source
from zaqar_gevent.push.workers import RemoteWorkers

SUBSCRIBERS = 1000
SOURCE = Source('demo', 'q')


class Subscriptions:
    """Those of one queue. reads: how often they have been read."""

    def __init__(self) -> None:
        self.reads = 0

    def list(self, *_: Any, marker: int | None = None, limit: int = 10, **__: Any) -> Iterator[Any]:
        begin = marker or 0
        self.reads += not begin
        gevent.sleep(0)
        rows = [
            {'id': str(number), 'source': 'q', 'subscriber': f'http://x.test/{number}'}
            for number in range(begin, min(begin + limit, SUBSCRIBERS))
        ]
        return iter((iter(rows), begin + limit))


class Deliverer:
    """Notes what is to be delivered, by subscription."""

    def __init__(self) -> None:
        self.delivered: dict[str, list[Any]] = {}

    def deliver(self, source: Source, one: Any, notifications: list[Any], policy: Any) -> None:
        bodies = [each.document['body'] for each in notifications]
        self.delivered.setdefault(one['id'], []).extend(bodies)


def new_notifier(subscriptions: Subscriptions, deliverer: Any) -> Notifier:
    conf = configuration.load(cfg.ConfigOpts(), [])
    notifier = Notifier(conf, subscriptions, 60.0, Loops(conf, is_local=True))
    notifier.deliverer = deliverer
    notifier.tells_others = True
    return notifier


def test_posts_come_in_order_and_others_between_them() -> None:
    subscriptions, deliverer = Subscriptions(), Deliverer()
    notifier = new_notifier(subscriptions, deliverer)
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0)
            turns += 1

    others = gevent.spawn(count)
    posts = [
        gevent.spawn(notifier.notify, 'q', 'demo', [{'body': number, 'ttl': 60}], {}, None)
        for number in range(5)
    ]
    gevent.joinall(posts, raise_error=True)
    others.kill()
    assert deliverer.delivered == {str(number): [0, 1, 2, 3, 4] for number in range(SUBSCRIBERS)}
    assert turns > 5 * SUBSCRIBERS // 200
    # All who ask at the same time wait for one of them.
    assert subscriptions.reads == 1


class Unread(list[Any]):
    """Subscriptions that nobody may walk through."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError


def test_a_post_does_not_look_at_each_connection() -> None:
    own: Address = ('127.0.0.1', 1, 'one')
    workers = RemoteWorkers(None, print, print)  # type: ignore[arg-type]
    workers.own = own
    workers.tell(SOURCE, {own: Unread(), ('127.0.0.1', 1, 'other'): Unread()})
    assert list(workers._known) == [('127.0.0.1', 1, 'other')]
