"""The interface through which operations notify subscribers that are not connected.

The implementation is `zaqar_gevent.webhooks`; the server passes it in.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypedDict

from zaqar_gevent.api import documents
from zaqar_gevent.api.push import Source
from zaqar_gevent.bodies import Body

Subscription = dict[str, Any]


class Notification:
    """A notification for a subscriber: a message, or a request to confirm.

    document: the notification itself, not to be changed; subscribers share it. body: the same as
        JSON. ident: its id in signed requests, the same for each try. passed: the queues that the
        message has come through by webhooks, this one included. expires_at: when it is of no use
        any more, in seconds of `time.monotonic`.
    attributes, group: of the message, if it has any.
    holders: how many subscriptions it waits for, which only the scheduler counts.
    """

    __slots__ = (
        *('attributes', 'body', 'document', 'expires_at', 'group', 'holders', 'ident'),
        'passed',
    )

    def __init__(
        self,
        document: dict[str, Any],
        passed: str,
        ttl: float | None,
        attributes: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> None:
        self.document = document
        self.body = documents.encode_json(document)
        self.ident = f'msg_{secrets.token_hex(16)}'
        self.passed = passed
        self.attributes = attributes
        self.group = group
        self.expires_at = None if ttl is None else time.monotonic() + ttl
        self.holders = 0

    def values(self) -> dict[str, Any]:
        """The notification, with the value of the message's body."""
        body = self.document.get('body')
        return (
            {**self.document, 'body': body.value} if isinstance(body, Body) else {**self.document}
        )


class Failure(TypedDict):
    """`at` is a time in ISO 8601."""

    at: str
    reason: str


class DeliveryState(TypedDict):
    """How the delivery to a subscription goes, as seen by the process that answers.

    Times are in ISO 8601. `next_try`: when a failed notification is sent again. `waiting`:
    notifications that wait to be sent. `dropped`: those that never will be.
    """

    last_success: str | None
    last_failure: Failure | None
    next_try: str | None
    waiting: int
    dropped: int


class DelayedDelivery(Protocol):
    """Notifies subscribers and waiting clients of delayed messages when they are due."""

    def remember(
        self,
        source: Source,
        messages: Sequence[Mapping[str, Any]],
        ids: Sequence[str],
        passed: str | None,
    ) -> None:
        """Messages with these ids were posted just now, some with a `delay` in seconds.

        passed: the queues that they came through by webhooks.
        """
        ...

    def remember_retries(self, source: Source, delays: Collection[float]) -> None:
        """Messages were released just now; `delays`: before they can be claimed, in seconds."""
        ...


class Deliverer(Protocol):
    """Sends notifications over HTTP and by mail; no method waits.

    Ids of subscriptions may count within their queue only.
    """

    def deliver(
        self,
        source: Source,
        subscription: Subscription,
        notifications: Sequence[Notification],
        retry_policy: Mapping[str, Any],
    ) -> None:
        """Tell a subscriber, in order, after what it is being told already.

        retry_policy: the queue's.
        """
        ...

    def changed(self, source: Source, subscription: Subscription) -> None:
        """A subscription has another subscriber or other options, which count from now on."""
        ...

    def ended(self, source: Source, subscription_id: str) -> None:
        """A subscription was deleted: what waits for it is dropped."""
        ...

    def state_of(self, source: Source, subscription_id: str) -> DeliveryState | None:
        """How the delivery goes; None where nothing has been sent or waits to be."""
        ...
