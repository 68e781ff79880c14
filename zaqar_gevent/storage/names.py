"""Checks that the stores behind a server can tell the names of projects and queues apart.

Upstream's drivers join project, queue and kind to one key. Two pairs of names must not make the
same key, and none a key that the driver uses for something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from zaqar.storage import base
from zaqar.transport.validation import ValidationFailed

# In Redis PROJECT.QUEUE is a queue, PROJECT.queues_set names a project's queues, and what belongs
# to a queue is at PROJECT.QUEUE.KIND. What belongs to a claim is at messages.ID.
_REDIS_RESERVED = 'queues_set'
# `.messages.delayed` is this project's own.
_REDIS_KINDS = ('messages', 'claims', 'subscriptions', 'rank_counter', 'messages.delayed')
_REDIS_CLAIMS = 'messages'
_UUID = re.compile('[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', re.IGNORECASE)


class NameRules:
    """Refuses names that a store cannot keep apart from others.

    uses: says whether data is kept by the driver of this name.
    """

    def __init__(self, uses: Callable[[str], bool]) -> None:
        self._uses = uses

    def check_project(self, project: str) -> None:
        """Raise `ValidationFailed` for a project of which no queues can be kept."""
        for character, driver in (('.', 'redis'), ('/', 'swift')):
            if character in project and self._uses(driver):
                raise ValidationFailed(
                    f'A project ID must not contain "{character}", which the {driver} driver of '
                    'this server puts behind it.'
                )

    def check_queue(self, queue: str, project: str | None) -> None:
        """Raise `ValidationFailed` for a queue that cannot be kept."""
        is_taken = (
            queue == _REDIS_RESERVED
            or any(queue.endswith(f'.{kind}') and queue != f'.{kind}' for kind in _REDIS_KINDS)
            or (project == _REDIS_CLAIMS and _UUID.fullmatch(queue))
        )
        if is_taken and self._uses('redis'):
            raise ValidationFailed(
                'This name is reserved by the redis driver of this server: a name must not be '
                f'"{_REDIS_RESERVED}" or end with one of '
                f'{", ".join(f".{one}" for one in _REDIS_KINDS)}.'
            )


def names_for(conf: cfg.ConfigOpts, control: base.ControlDriverBase) -> NameRules:
    """The names that the stores of a server with this configuration can keep apart."""
    configured = {conf.drivers.management_store}
    if not conf.pooling:
        configured.add(conf.drivers.message_store)

    def uses(driver: str) -> bool:
        return driver in configured or (conf.pooling and driver in _pooled_drivers(control))

    return NameRules(uses)


def _pooled_drivers(control: Any) -> set[str]:
    pools = next(control.pools_controller.list(limit=0))
    # What is spoken over TLS is the same store.
    return {str(pool['uri']).partition(':')[0].replace('rediss', 'redis') for pool in pools}
