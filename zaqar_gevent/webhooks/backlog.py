"""The notifications that wait for one subscription, and the state of its delivery."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from zaqar_gevent import metrics
from zaqar_gevent.api import documents
from zaqar_gevent.api.delivery import Notification, Subscription
from zaqar_gevent.api.push import Source

if TYPE_CHECKING:
    from zaqar_gevent.webhooks.shares import Share

Result = metrics.DeliveryResult
Reason = metrics.UndeliveredReason

_BACKLOG_BYTES = 2048


class Outcome(NamedTuple):
    """How one try ended.

    result: `failed` is worth another try, `refused` is not. reason: why, without addresses and
        bodies. retry_after: how long the subscriber asks to wait, in seconds.
    """

    result: Result
    reason: str = ''
    retry_after: float = 0.0


DELIVERED = Outcome('delivered')


class Timer(Protocol):
    """A job that was started by `later`."""

    def close(self) -> object: ...


class Backlog:
    """The notifications that wait for one subscription, in order, and its state so far.

    row: the subscription as stored; None while nothing waits. waiting: the first one may be on its
        way. is_busy: whether it is. is_gone: whether the subscription has ended.
    ends_at: when the subscription ends by itself. ends_at, succeeded_at, failed_at, next_try_at: by
        the scheduler's clock; None for never.
    """

    __slots__ = (
        *('_row_bytes', 'attempt', 'began', 'delays', 'dropped', 'ends_at', 'failed_at'),
        *('failure', 'ident', 'is_busy', 'is_gone', 'is_prompt', 'is_ready', 'next_try_at'),
        *('policy', 'project', 'row', 'share', 'source', 'succeeded_at', 'timer', 'waiting'),
    )

    def __init__(self, source: Source, ident: str) -> None:
        self.source = source
        self.project = source.project_id
        self.ident = ident
        self.row: Subscription | None = None
        self.policy: Mapping[str, Any] = {}
        self.waiting: collections.deque[Notification] = collections.deque()
        self.is_busy = self.is_ready = self.is_prompt = self.is_gone = False
        self.share: Share | None = None
        self.timer: Timer | None = None
        self.began = 0.0
        self.attempt = 0
        self.delays: tuple[float, ...] = ()
        self.dropped = 0
        self.failure = ''
        self.ends_at: float | None = None
        self.succeeded_at: float | None = None
        self.failed_at: float | None = None
        self.next_try_at: float | None = None
        self._row_bytes = 0

    def renew(self, row: Subscription | None) -> int:
        """Take the subscription as it is now; by how many bytes it is larger than before."""
        if row is self.row:
            return 0
        before = self._row_bytes
        self.row = row
        self._row_bytes = 0
        if row is not None:
            self._row_bytes = _BACKLOG_BYTES + len(documents.encode_json(self.options))
        return self._row_bytes - before

    @property
    def is_new(self) -> bool:
        """Whether its subscriber was never tried."""
        return self.succeeded_at is None and self.failed_at is None

    @property
    def options(self) -> Mapping[str, Any]:
        """The subscription's own options."""
        return (self.row or {}).get('options') or {}
