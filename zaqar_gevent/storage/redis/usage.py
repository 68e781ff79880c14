"""What a project has on a server: subscriptions and bytes, from counters.

The bytes of a project are counted by the second in which they expire, and all together. So what
has expired is subtracted when somebody asks, each second once, although Redis removes the messages
by itself. A message knows as how many bytes it is counted; one without a number is not counted.
What is left of a deleted queue counts until it is removed.

Only servers whose options limit the bytes of a project count them when it posts: the others need
not pay for it. All servers see to it that what is removed is not counted any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from oslo_utils import timeutils

from zaqar_gevent.storage.interface import Usage
from zaqar_gevent.storage.redis import keys
from zaqar_gevent.storage.redis.messages import STEP
from zaqar_gevent.storage.redis.servers import load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

_COUNT_BYTES = load('usage_bytes')
_COUNT_SUBSCRIPTIONS = load('usage_subscriptions')
_GET = load('usage_get')


def _count_nothing(project: str | None) -> bool:
    return False


class UsageController:
    """What projects have on one server."""

    def __init__(self, driver: DataDriver) -> None:
        self._driver = driver
        self._server = driver.server
        self._is_counted: Callable[[str | None], bool] = _count_nothing

    def counts(self, project: str | None) -> bool:
        """Whether this server counts the bytes that a project posts."""
        return self._is_counted(project)

    def begin(self, has_bytes: Callable[[str | None], bool] | None) -> None:
        """Count from now on, together with what is there and is not counted yet."""
        self._is_counted = has_bytes or _count_nothing
        for key in self._driver.message_controller.find_queues():
            scope = key.removesuffix('.messages')
            self._server.run(_COUNT_SUBSCRIPTIONS, (f'{scope}.subscriptions',))
            if self._is_counted(scope.rpartition('.')[0] or None):
                for messages in (key, key + keys.DELAYED):
                    self._count_bytes(messages)

    def _count_bytes(self, messages: str) -> None:
        after: bytes | str | None = '-inf'
        while after is not None:
            now = timeutils.utcnow_ts()
            after = self._server.run(_COUNT_BYTES, (messages,), now, after, STEP)

    def get(self, project: str | None = None) -> Usage:
        """What a project has, after `begin`."""
        places = keys.project_subscriptions(project), *keys.project_bytes(project)
        return Usage(*self._server.run(_GET, places, timeutils.utcnow_ts()))
