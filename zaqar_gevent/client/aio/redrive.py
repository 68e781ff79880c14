"""Redrives: dead letters that the server moves back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from zaqar_gevent.client.aio import io
from zaqar_gevent.client.aio.target import Target
from zaqar_gevent.client.errors import Timeout

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


class Redrive:
    """A redrive of a queue, as it was when the server was asked last; `Queue.redrive` begins one.

    id: tells it from others of its queue. target: the queue that the messages go to; None for where
    each is from. limit: how many are moved at most; None for all. rate: how many a second at most.
    state: `running`, `finished`, `cancelled` or `stopped`. reason: why it has stopped. moved: how
    many messages were moved. left: how many stay, since they do not say where they are from.
    started, ended: texts in ISO 8601; `ended` is None while it runs.
    """

    def __init__(self, target: Target, document: Mapping[str, Any]) -> None:
        self._queue = target
        self._read(document)

    def _read(self, document: Mapping[str, Any]) -> None:
        self.id: str = document['id']
        self.target: str | None = document['target']
        self.limit: int | None = document['limit']
        self.rate: float | None = document['rate']
        self.state: str = document['state']
        self.reason: str | None = document['reason']
        self.moved: int = document['moved']
        self.left: int = document['left']
        self.started: str = document['started']
        self.ended: str | None = document['ended']

    def __repr__(self) -> str:
        return f'<Redrive {self.id} of {self._queue.name}: {self.state}, {self.moved} moved>'

    @property
    def is_over(self) -> bool:
        """Whether it is not running any more."""
        return self.state != 'running'

    async def refresh(self) -> Redrive:
        """Ask the server how far it is; itself. Raises NotFound once it is forgotten."""
        self._read(await self._queue.call('redrive_get', redrive_id=self.id))
        return self

    async def cancel(self) -> None:
        """End it; messages that it has moved stay moved."""
        await self._queue.call('redrive_delete', redrive_id=self.id)
        await self.refresh()

    async def wait(self, timeout: float | None = None) -> Redrive:
        """Wait until it is over; itself. It goes on without anybody who waits.

        timeout: seconds to wait at most; None for as long as it takes. Raises Timeout after that.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while not (await self.refresh()).is_over:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Timeout(f'The redrive {self.id} is still running.')
                pause = min(pause, left)
            await io.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return self
