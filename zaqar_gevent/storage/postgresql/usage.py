"""What a project has in a database: subscriptions and bytes, from counters.

Triggers count, see `tables_3.sql`. Those of messages are disabled until a server begins to count
bytes, so that others need not pay for it. What has expired counts until it is removed, within
seconds, and so does what is left of a deleted queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zaqar_gevent.storage.interface import Usage
from zaqar_gevent.storage.postgresql import kinds
from zaqar_gevent.storage.postgresql.upkeep import count_bytes

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import DataDriver


class UsageController:
    """What projects have in one database."""

    def __init__(self, driver: DataDriver) -> None:
        self._server = driver.server

    def begin(self, has_bytes: Callable[[str | None], bool] | None) -> None:
        """Count the bytes of all projects from now on, together with all that is there."""
        if has_bytes is not None:
            self._server.upkeep.counts_bytes = True
            count_bytes(self._server)

    def get(self, project: str | None = None) -> Usage:
        """What a project has, after `begin`."""
        [_, subscriptions, used], _ = self._server.call(kinds.READS, 'usage', project or '')
        return Usage(subscriptions, used)
