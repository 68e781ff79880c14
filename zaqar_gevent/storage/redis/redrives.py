"""Redrives of the queues of one server."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

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
from zaqar_gevent.storage.redis import keys
from zaqar_gevent.storage.redis.documents import Page
from zaqar_gevent.storage.redis.messages import exact_time, new_ids
from zaqar_gevent.storage.redis.servers import load

if TYPE_CHECKING:
    from zaqar_gevent.storage.redis.driver import DataDriver

_CREATE = load('redrive_create', is_repeatable=False)
_LIST = load('redrive_list', is_write=False)
_DUE = load('redrive_due', is_write=False)
_END = load('redrive_end')
_STEP = load('redrive_step', is_repeatable=False)

_FIELDS = (
    *('number', 'target', 'moved', 'remaining', 'rate', 'state', 'reason', 'left', 'created'),
    'updated',
)
_DIGITS = frozenset('0123456789abcdef')
_ID_LENGTH = 16


class RedriveController:
    """See `zaqar_gevent.storage.interface.RedriveController`."""

    def __init__(self, driver: DataDriver) -> None:
        self._driver = driver
        self._server = driver.server
        self._kept_seconds = redrives.KEPT_SECONDS

    def create(self, queue: str, new: NewRedrive, project: str | None = None) -> StoredRedrive:
        """Begin a redrive; raises `TooManyRedrives`."""
        found = self._server.run(
            _CREATE,
            (
                keys.REDRIVE_NUMBERS,
                keys.REDRIVES_DUE,
                keys.redrives(queue, project),
                keys.running_redrives(project),
                keys.rank_counter(queue, project),
            ),
            keys.redrive(queue, project, ''),
            project or '',
            queue,
            exact_time(),
            new.target or '',
            '' if new.limit is None else new.limit,
            '' if new.rate is None else new.rate,
            new.most_of_queue,
            new.most_of_project,
            redrives.KEPT_OF_QUEUE,
        ).decode()
        if found == 'queue':
            raise TooManyRedrives('queue', new.most_of_queue)
        if found == 'project':
            raise TooManyRedrives('project', new.most_of_project)
        return self.get(queue, found, project)

    def get(self, queue: str, redrive_id: str, project: str | None = None) -> StoredRedrive:
        """One redrive; raises `RedriveDoesNotExist`."""
        if _is_id(redrive_id):
            key = keys.redrive(queue, project, redrive_id)
            found = self._server.ask('HMGET', key, *_FIELDS)
            if found[0] is not None:
                return _present(found)
        raise RedriveDoesNotExist(redrive_id, queue, project)

    def list(
        self, queue: str, project: str | None = None, marker: str | None = None, limit: int = 10
    ) -> list[StoredRedrive]:
        """A page of redrives after the one with the id `marker`, oldest first."""
        after = str(int(marker, 16)) if marker and _is_id(marker) else '-inf'
        found = self._server.run(
            _LIST,
            (keys.redrives(queue, project),),
            keys.redrive(queue, project, ''),
            after,
            limit,
            *_FIELDS,
        )
        return [_present(one) for one in found]

    def end(
        self,
        queue: str,
        redrive_id: str,
        project: str | None,
        state: State,
        reason: str | None = None,
    ) -> None:
        """End a redrive that runs; raises `RedriveDoesNotExist`."""
        if not _is_id(redrive_id) or not self._server.run(
            _END,
            (
                keys.redrive(queue, project, redrive_id),
                keys.REDRIVES_DUE,
                keys.running_redrives(project),
            ),
            state.value,
            reason or '',
            exact_time(),
            self._kept_seconds,
        ):
            raise RedriveDoesNotExist(redrive_id, queue, project)

    def find_due(self, limit: int) -> DueRedrives:
        """Redrives whose next step is due: at most `limit` of them."""
        now = exact_time()
        first, *found = self._server.run(_DUE, (keys.REDRIVES_DUE,), now, limit)
        due = [
            RunningRedrive(project.decode() or None, queue.decode(), number.decode())
            for project, queue, number in found
            if number is not None
        ]
        return DueRedrives(due, max(0.0, float(first) - float(now)) if first else None)

    def step(self, redrive: RunningRedrive, targets: Collection[str]) -> Step:
        """Move some messages of a redrive to those queues of `targets` that they are for."""
        project, queue = redrive.project, redrive.queue
        arguments: list[Any] = []
        for target in targets:
            messages = keys.messages(target, project)
            counter = keys.rank_counter(target, project)
            arguments += (target, messages, counter, new_ids(messages))
        moved, wanted, *found = self._server.run(
            _STEP,
            (
                keys.redrive(queue, project, redrive.id),
                keys.REDRIVES_DUE,
                keys.running_redrives(project),
                keys.messages(queue, project),
            ),
            exact_time(),
            self._kept_seconds,
            redrives.STEP,
            redrives.STEP_BYTES,
            queue,
            *arguments,
        )
        pages = zip(found[::2], found[1::2], strict=True)
        messages_of = {name.decode(): [*self._driver.present(Page(page))] for name, page in pages}
        return Step(moved, wanted.decode() or None, messages_of)

    def forget(self, seconds: float) -> None:
        """Remember those that end from now on for so long; Redis forgets them by itself."""
        self._kept_seconds = max(1, int(seconds))


def _is_id(text: str) -> bool:
    return len(text) == _ID_LENGTH and _DIGITS.issuperset(text)


def _present(fields: list[Any]) -> StoredRedrive:
    (number, target, moved, remaining, rate, state, reason, left, created, updated) = (
        field.decode() for field in fields
    )
    return {
        'id': number,
        'target': target or None,
        'limit': int(moved) + int(remaining) if remaining else None,
        'rate': float(rate) if rate else None,
        'state': state,
        'reason': reason or None,
        'moved': int(moved),
        'left': int(left),
        'created': float(created),
        'ended': None if state == State.RUNNING else float(updated),
    }
