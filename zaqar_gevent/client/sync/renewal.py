# Written by `tox -e genblocking` from client/aio/renewal.py: change that one.
# fmt: off
"""Renewing claims that the server does not renew by itself."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from zaqar_gevent.client.sync import io
from zaqar_gevent.client.errors import ClientClosed, NotFound, ZaqarError

LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5


class ClaimRenewer:
    """Renews claims at half their time, in a task that exists while there are any.

    renew: renews one and says for how many seconds; raises NotFound where it has ended. lost: told
    of those that have. release: gives one back.
    """

    def __init__(
        self,
        renew: Callable[[str], Any],
        lost: Callable[[str], None],
        release: Callable[[str], Any],
    ) -> None:
        self._renew = renew
        self._lost = lost
        self._release = release
        self._abandoned: set[str] = set()
        self._changed = io.Condition()
        self._due: dict[str, float] = {}
        self._task: io.Task | None = None
        self._is_closed = False

    def start(self, claim_id: str, seconds: float) -> None:
        """Renew a claim from now on, which has so many seconds left; with none, at once."""
        with self._changed:
            if self._is_closed:
                return
            self._schedule(claim_id, seconds / 2)

    def abandon(self, claim_id: str) -> None:
        """Give a claim back as soon as can be."""
        with self._changed:
            if not self._is_closed:
                self._abandoned.add(claim_id)
                self._schedule(claim_id, 0)

    def stop(self, claim_id: str) -> None:
        """Do not renew a claim any more."""
        with self._changed:
            self._due.pop(claim_id, None)
            self._abandoned.discard(claim_id)

    def close(self) -> set[str]:
        """Renew nothing any more; which claims are still to be given back."""
        with self._changed:
            self._is_closed = True
            self._due.clear()
            self._changed.notify_all()
            return set(self._abandoned)

    def _schedule(self, claim_id: str, seconds: float) -> None:
        self._due[claim_id] = time.monotonic() + seconds
        if self._task is None:
            self._task = io.Task(self._run, 'zaqar-renewal')
            self._task.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while claim_id := self._next():
            self._attend(claim_id)

    def _next(self) -> str | None:
        """The next claim to renew, waited for; None when there is none left."""
        with self._changed:
            while self._due:
                claim_id = min(self._due, key=lambda one: self._due[one])
                left = self._due[claim_id] - time.monotonic()
                if left <= 0:
                    return claim_id
                self._changed.wait(left)
            self._task = None
            return None

    def _attend(self, claim_id: str) -> None:
        seconds = 2 * _RETRY_SECONDS
        try:
            if claim_id in self._abandoned:
                self._release(claim_id)
                self.stop(claim_id)
            else:
                seconds = self._renew(claim_id)
        except (NotFound, ClientClosed):
            self.stop(claim_id)
            # The owner may have been dropped meanwhile; then nobody is notified.
            with contextlib.suppress(ClientClosed):
                self._lost(claim_id)
            return
        except ZaqarError as error:
            LOG.info('Claim %s is not renewed yet: %s', claim_id, error)
        with self._changed:
            if claim_id in self._due:
                self._due[claim_id] = time.monotonic() + seconds / 2
