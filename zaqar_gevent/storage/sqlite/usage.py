"""What a project has in a file: subscriptions and bytes, from counters.

Triggers keep the table `usage`, for queues as well. The bytes in it are those that are counted in
the rows of spools; what has happened last is added here, which is little at any time (see
`tallies`). What has expired counts until it is removed, within seconds. What is left of a deleted
queue does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zaqar_gevent.storage.interface import Usage
from zaqar_gevent.storage.sqlite.schema import MESSAGE_BYTES
from zaqar_gevent.storage.sqlite.tallies import NEW

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver

_USAGE = f"""SELECT
    ifnull((SELECT subscriptions FROM usage WHERE project = :project), 0),
    ifnull((SELECT bytes FROM usage WHERE project = :project), 0)
    + ifnull((SELECT sum(c.bytes) FROM changes c NOT INDEXED
        CROSS JOIN spools s ON s.id = c.spool AND s.project = :project), 0)
    + ifnull((SELECT sum(n.bytes) FROM (SELECT m.spool, {MESSAGE_BYTES} AS bytes {NEW}) n
        CROSS JOIN spools s ON s.id = n.spool AND s.project = :project), 0)"""


class UsageController:
    """What projects have in one file."""

    def __init__(self, driver: DataDriver) -> None:
        self._database = driver.database

    def begin(self, has_bytes: Callable[[str | None], bool] | None) -> None:
        """Nothing: all is always counted."""

    def get(self, project: str | None = None) -> Usage:
        """What a project has."""
        return Usage(*self._database.get_row(_USAGE, {'project': project or ''}))
