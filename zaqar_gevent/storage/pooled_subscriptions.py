"""Subscriptions behind upstream's pools, where a queue may be in no pool yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zaqar.storage import base, errors, pooling


def answer_without_pool(storage: pooling.DataDriver) -> None:
    """Let a queue that is in no pool have no subscriptions, where upstream answers None."""
    storage.subscription_controller.__class__ = _Subscriptions


class _Subscriptions(pooling.SubscriptionController):
    """Subscriptions of the pool of a queue; none if the queue is in no pool."""

    def list(
        self,
        queue: str,
        project: str | None = None,
        marker: str | None = None,
        limit: int = base.DEFAULT_SUBSCRIPTIONS_PER_PAGE,
    ) -> Iterator[Any]:
        found: Iterator[Any] | None = super().list(queue, project, marker, limit)
        return iter((iter(()), None)) if found is None else found

    def get(self, queue: str, subscription_id: str, project: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] | None = super().get(queue, subscription_id, project)
        if found is None:
            raise errors.SubscriptionDoesNotExist(subscription_id)
        return found

    def update(
        self, queue: str, subscription_id: str, project: str | None = None, **changes: Any
    ) -> None:
        self._require_pool(queue, subscription_id, project)
        super().update(queue, subscription_id, project, **changes)

    def confirm(
        self,
        queue: str,
        subscription_id: str,
        project: str | None = None,
        confirmed: bool | None = None,
    ) -> None:
        self._require_pool(queue, subscription_id, project)
        super().confirm(queue, subscription_id, project, confirmed)

    def _require_pool(self, queue: str, subscription_id: str, project: str | None) -> None:
        if self._get_controller(queue, project) is None:
            raise errors.SubscriptionDoesNotExist(subscription_id)
