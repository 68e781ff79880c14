"""Subscriptions to the messages of queues."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oslo_utils import timeutils
from zaqar.storage import base, errors

from zaqar_gevent.storage import own_drivers
from zaqar_gevent.storage.redis import bodies, keys
from zaqar_gevent.storage.redis.servers import load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

Subscription = dict[str, Any]
Page = list[Subscription]

_SUBSCRIBE = load('subscribe')
_LIST = load('subscriptions', is_write=False)
_GET = load('subscription_get', is_write=False)
_DELETE = load('subscription_delete')

_ALL = 2**31


class SubscriptionController(own_drivers.SubscriptionController):
    """The subscriptions of one server."""

    def __init__(self, driver: DataDriver) -> None:
        super().__init__(driver)
        self._server = driver.server

    def list(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_SUBSCRIPTIONS_PER_PAGE,
    ) -> Iterator[Any]:
        """A page of a queue's subscriptions, by id, and the marker of the next."""
        page = self._find(queue, project, marker, limit)
        return iter((iter(page), page[-1]['id'] if page else None))

    def get(self, queue: str, subscription_id: str, project: str | None = None) -> Subscription:
        """One subscription, or `SubscriptionDoesNotExist`."""
        key = keys.subscriptions(queue, project)
        found = self._server.run(_GET, (key, str(subscription_id)), str(subscription_id))
        if found is None:
            raise errors.SubscriptionDoesNotExist(subscription_id)
        return _present(str(subscription_id).encode(), found)

    def get_with_subscriber(
        self, queue: str, subscriber: str, project: str | None = None
    ) -> Subscription:
        """The subscription of `subscriber`, or `SubscriptionDoesNotExist`."""
        for found in self._find(queue, project, None, 1, subscriber):
            return found
        raise errors.SubscriptionDoesNotExist(subscriber)

    def create(
        self,
        queue: str,
        subscriber: str,
        ttl: int,
        options: dict[str, Any],
        project: str | None = None,
    ) -> str | None:
        """Subscribe for `ttl` seconds; the new id, or None when there is one already."""
        created = str(uuid.uuid4())
        fields = {
            'id': created,
            's': queue,
            'u': subscriber,
            't': ttl,
            'e': timeutils.utcnow_ts() + ttl,
            'o': bodies.pack(options),
            'p': project or '',
            'c': 0,
        }
        is_new = self._write(queue, created, project, fields, is_new=True)
        return created if is_new else None

    def update(
        self, queue: str, subscription_id: str, project: str | None = None, **kwargs: Any
    ) -> None:
        """Change the `subscriber`, `ttl` (which starts anew) or `options`.

        Raises `SubscriptionDoesNotExist` or `SubscriptionAlreadyExists`.
        """
        fields: dict[str, Any] = {}
        if kwargs.get('subscriber') is not None:
            fields['u'] = kwargs['subscriber']
        if kwargs.get('ttl') is not None:
            fields.update(t=kwargs['ttl'], e=timeutils.utcnow_ts() + kwargs['ttl'])
        if kwargs.get('options') is not None:
            fields['o'] = bodies.pack(kwargs['options'])
        assert fields, '`subscriber`, `ttl` or `options` not found in kwargs'
        if not self._write(queue, subscription_id, project, fields):
            raise errors.SubscriptionAlreadyExists()

    def confirm(
        self,
        queue: str,
        subscription_id: str,
        project: str | None = None,
        confirmed: bool = True,
    ) -> None:
        """Confirm a subscription, or take that back; raises `SubscriptionDoesNotExist`."""
        self._write(queue, subscription_id, project, {'c': int(confirmed)})

    def delete(self, queue: str, subscription_id: str, project: str | None = None) -> None:
        """End a subscription, which may have ended already."""
        key = keys.subscriptions(queue, project)
        self._server.run(_DELETE, (key, str(subscription_id)), str(subscription_id))

    def _find(
        self,
        queue: str,
        project: str | None,
        marker: str | None,
        limit: int,
        subscriber: str = '',
    ) -> Page:
        key = keys.subscriptions(queue, project)
        page: Page = []
        after: Any = f'({marker}' if marker else '-'
        limit = limit or _ALL
        while after is not None:
            found, after = self._server.run(_LIST, (key,), after, limit - len(page), subscriber, '')
            page += [_present(one, record) for one, record in found]
        return page

    def _write(
        self,
        queue: str,
        subscription_id: str,
        project: str | None,
        fields: dict[str, Any],
        *,
        is_new: bool = False,
    ) -> bool:
        """Whether no other subscription has the subscriber; raises `SubscriptionDoesNotExist`."""
        written = self._server.run(
            _SUBSCRIBE,
            (keys.subscriptions(queue, project), str(subscription_id)),
            '1' if is_new else '',
            str(subscription_id),
            fields.get('u', ''),
            fields.get('t', ''),
            *(part for field in fields.items() for part in field),
        )
        if written is None:
            raise errors.SubscriptionDoesNotExist(subscription_id)
        return bool(written)


def _present(subscription_id: bytes, record: list[Any]) -> Subscription:
    source, subscriber, ttl, expires, options, confirmed = record
    created = int(expires) - int(ttl)
    return {
        'id': subscription_id.decode(),
        'source': source.decode(),
        'subscriber': subscriber.decode(),
        'ttl': int(ttl),
        'age': max(0, timeutils.utcnow_ts() - created),
        'options': bodies.unpack(options),
        # Upstream's older servers did not know confirmation.
        'confirmed': confirmed is None or bool(int(confirmed)),
    }
