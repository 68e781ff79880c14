"""Redrives of the queues of one file."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from oslo_utils import timeutils

from zaqar_gevent.redrives import (
    DueRedrives,
    NewRedrive,
    RedriveDoesNotExist,
    RunningRedrive,
    State,
    Step,
    StoredRedrive,
)
from zaqar_gevent.storage.core.pages import decode_id
from zaqar_gevent.storage.sqlite import redriving

if TYPE_CHECKING:
    from zaqar_gevent.storage.sqlite.driver import DataDriver


class RedriveController:
    """See `zaqar_gevent.storage.interface.RedriveController`."""

    def __init__(self, driver: DataDriver) -> None:
        self._database = driver.database

    def create(self, queue: str, new: NewRedrive, project: str | None = None) -> StoredRedrive:
        """Begin a redrive; raises `TooManyRedrives`."""
        created: StoredRedrive = self._database.write(
            redriving.create, project or '', queue, new, _now()
        )
        return created

    def get(self, queue: str, redrive_id: str, project: str | None = None) -> StoredRedrive:
        """One redrive; raises `RedriveDoesNotExist`."""
        found: StoredRedrive | None = self._database.read(
            redriving.get, project or '', queue, redrive_id
        )
        if found is None:
            raise RedriveDoesNotExist(redrive_id, queue, project)
        return found

    def list(
        self, queue: str, project: str | None = None, marker: str | None = None, limit: int = 10
    ) -> list[StoredRedrive]:
        """A page of redrives after the one with the id `marker`, oldest first."""
        after = 0 if not marker else decode_id(marker) or 0
        page: list[StoredRedrive] = self._database.read(
            redriving.read_list, project or '', queue, after, limit
        )
        return page

    def end(
        self,
        queue: str,
        redrive_id: str,
        project: str | None,
        state: State,
        reason: str | None = None,
    ) -> None:
        """End a redrive that runs; raises `RedriveDoesNotExist`."""
        self._database.write(redriving.end, project or '', queue, redrive_id, state, reason, _now())

    def find_due(self, limit: int) -> DueRedrives:
        """Redrives whose next step is due: at most `limit` of them."""
        now = _now()
        found, first = self._database.read(redriving.find_due, now, limit)
        due = [RunningRedrive(project or None, queue, number) for project, queue, number in found]
        return DueRedrives(due, None if first is None else max(0.0, first - now))

    def step(self, redrive: RunningRedrive, targets: Collection[str]) -> Step:
        """Move some messages of a redrive to those queues of `targets` that they are for."""
        taken: Step = self._database.write(
            redriving.step,
            redrive.project or '',
            redrive.queue,
            redrive.id,
            _now(),
            targets,
        )
        return taken

    def forget(self, seconds: float) -> None:
        """Forget redrives that have been over for so long."""
        self._database.write(redriving.forget, _now() - seconds)


def _now() -> float:
    now: float = timeutils.utcnow_ts(microsecond=True)
    return now
