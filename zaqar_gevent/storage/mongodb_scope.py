"""Upstream's driver for MongoDB, with names and ids that count only within queue and project.

Upstream lists queues by a regular expression in which project and name are not escaped, so a client
could list the queues of other projects. It confirms a subscription by its id and project alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zaqar.storage import errors
from zaqar.storage.mongodb import subscriptions as upstream_subscriptions
from zaqar.storage.mongodb import utils


def confine(driver: Any) -> None:
    """Let ids of subscriptions count only within their queue in a data driver."""
    driver.subscription_controller.__class__ = Subscriptions


def confine_queues() -> None:
    """List the queues of one project only."""
    utils.scoped_query = scoped_query


class Subscriptions(upstream_subscriptions.SubscriptionController):
    """Subscriptions, found by project, queue and id."""

    def exists(self, queue: str, subscription_id: str, project: str | None = None) -> bool:
        try:
            self.get(queue, subscription_id, project=project)
        except errors.SubscriptionDoesNotExist:
            return False
        return True

    def confirm(
        self, queue: str, subscription_id: str, project: str | None = None, confirmed: bool = True
    ) -> None:
        self.get(queue, subscription_id, project=project)
        super().confirm(queue, subscription_id, project=project, confirmed=confirmed)


def scoped_query(
    queue: str | None,
    project: str | None,
    name: str | None = None,
    kfilter: Mapping[str, Any] | None = None,
    key_value: str = utils.PROJ_QUEUE_KEY,
) -> dict[str, Any]:
    """The query for the queues of a project that come after `queue`.

    name: what their names contain. kfilter: metadata that they have.
    """
    query: dict[str, Any] = {
        key_value: {
            '$regex': f'^{re.escape(project or "")}/[^/]*{re.escape(name or "")}[^/]*$',
            '$gt': utils.scope_queue_name(queue, project),
        }
    }
    for key, value in (kfilter or {}).items():
        query[f'm.{key}'] = {'$eq': value}
    return query
