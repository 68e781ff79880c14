"""Redrives of the queues of one database."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec
from oslo_utils import timeutils

from zaqar_gevent import redrives
from zaqar_gevent.redrives import (
    DueRedrives,
    NewRedrive,
    RedriveDoesNotExist,
    RunningRedrive,
    State,
    Step,
    StoredRedrive,
    TooManyRedrives,
)
from zaqar_gevent.storage.core.pages import decode_id, encode_id, read_page
from zaqar_gevent.storage.postgresql import kinds

if TYPE_CHECKING:
    from zaqar_gevent.storage.postgresql.driver import DataDriver
    from zaqar_gevent.storage.postgresql.servers import PostgresServer


class RedriveController:
    """See `zaqar_gevent.storage.interface.RedriveController`."""

    def __init__(self, driver: DataDriver) -> None:
        self._driver = driver
        self._server = driver.server

    def create(self, queue: str, new: NewRedrive, project: str | None = None) -> StoredRedrive:
        """Begin a redrive; raises `TooManyRedrives`."""
        found, _ = self._server.call(
            kinds.STEPS,
            'redrive_create',
            *(project or '', queue, _now(), new.target, new.limit, new.rate),
            *(new.most_of_queue, new.most_of_project, redrives.KEPT_OF_QUEUE),
            is_repeatable=False,
        )
        if found == 'queue':
            raise TooManyRedrives('queue', new.most_of_queue)
        if found == 'project':
            raise TooManyRedrives('project', new.most_of_project)
        return _present(found)

    def get(self, queue: str, redrive_id: str, project: str | None = None) -> StoredRedrive:
        """One redrive; raises `RedriveDoesNotExist`."""
        number = decode_id(redrive_id)
        if number is not None:
            for one in _read(self._server, queue, project, number, 0, 1):
                return one
        raise RedriveDoesNotExist(redrive_id, queue, project)

    def list(
        self, queue: str, project: str | None = None, marker: str | None = None, limit: int = 10
    ) -> list[StoredRedrive]:
        """A page of redrives after the one with the id `marker`, oldest first."""
        after = 0 if not marker else decode_id(marker) or 0
        return _read(self._server, queue, project, None, after, limit)

    def end(
        self,
        queue: str,
        redrive_id: str,
        project: str | None,
        state: State,
        reason: str | None = None,
    ) -> None:
        """End a redrive that runs; raises `RedriveDoesNotExist`."""
        number = decode_id(redrive_id)
        if number is not None:
            arguments = (project or '', queue, number, state.value, reason, _now())
            if self._server.call(kinds.STEPS, 'redrive_end', *arguments)[0]:
                return
        raise RedriveDoesNotExist(redrive_id, queue, project)

    def find_due(self, limit: int) -> DueRedrives:
        """Redrives whose next step is due: at most `limit` of them."""
        now = _now()
        (first, found), _ = self._server.call(kinds.READS, 'redrive_due', now, limit)
        due = [
            RunningRedrive(project or None, queue, encode_id(number))
            for project, queue, number in found
        ]
        return DueRedrives(due, None if first is None else max(0.0, first - now))

    def step(self, redrive: RunningRedrive, targets: Collection[str]) -> Step:
        """Move some messages of a redrive to those queues of `targets` that they are for."""
        project, queue, number = redrive.project or '', redrive.queue, decode_id(redrive.id)
        *moved, (summary, _) = self._server.rows(
            kinds.STEPS,
            'redrive_step',
            *(project, queue, number, _now(), msgspec.json.encode([*targets])),
            *(redrives.STEP, redrives.STEP_BYTES, redrives.FORGOTTEN_QUEUE),
            is_repeatable=False,
        )
        count, wanted = summary
        self._server.upkeep.removed(project, queue, count)
        messages: dict[str, Any] = {
            name: [*read_page(page, as_bodies=self._driver.carries_bodies)] for name, page in moved
        }
        return Step(count, wanted, messages)

    def forget(self, seconds: float) -> None:
        """Forget redrives that have been over for so long."""
        self._server.call(kinds.STEPS, 'redrive_forget', _now() - seconds)


def _read(
    server: PostgresServer,
    queue: str,
    project: str | None,
    number: int | None,
    after: int,
    limit: int,
) -> list[StoredRedrive]:
    """The redrive of a number, or those after another."""
    found, _ = server.call(kinds.READS, 'redrive_list', project or '', queue, number, after, limit)
    return [_present(one) for one in found]


def _now() -> float:
    now: float = timeutils.utcnow_ts(microsecond=True)
    return now


def _present(row: tuple[Any, ...]) -> StoredRedrive:
    number, target, moved, remaining, rate, state, reason, left, created, updated = row
    return {
        'id': encode_id(number),
        'target': target,
        'limit': None if remaining is None else moved + remaining,
        'rate': rate,
        'state': state,
        'reason': reason,
        'moved': moved,
        'left': left,
        'created': created,
        'ended': None if state == State.RUNNING else updated,
    }
