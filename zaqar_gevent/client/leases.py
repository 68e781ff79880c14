"""Keeping leases that the server does not keep by itself: renewing claims before they expire."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from zaqar_gevent.client.errors import ClientClosed, NotFound, ZaqarError

LOG = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5


class Lease:
    """A message's lease. feed: what the server keeps it for; None where the client keeps it.

    has_released: whether another message of the same claim was given back, which takes effect when
    nothing of the claim is left.
    """

    __slots__ = ('claim_id', 'feed', 'has_released')

    def __init__(self, claim_id: str, feed: Any) -> None:
        self.claim_id = claim_id
        self.feed = feed
        self.has_released = False


class Keeper:
    """Renews claims at half their time, in a thread that exists while there are any.

    renew: renews one and says for how many seconds; raises NotFound where it has ended. lost: told
    of those that have. release: gives one back.
    """

    def __init__(
        self,
        renew: Callable[[str], float],
        lost: Callable[[str], None],
        release: Callable[[str], None],
    ) -> None:
        self._renew = renew
        self._lost = lost
        self._release = release
        self._abandoned: set[str] = set()
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def keep(self, claim_id: str, seconds: float) -> None:
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

    def forget(self, claim_id: str) -> None:
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
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='zaqar-keeper', daemon=True)
            self._thread.start()
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
            self._thread = None
            return None

    def _attend(self, claim_id: str) -> None:
        seconds = 2 * _RETRY_SECONDS
        try:
            if claim_id in self._abandoned:
                self._release(claim_id)
                self.forget(claim_id)
            else:
                seconds = self._renew(claim_id)
        except (NotFound, ClientClosed):
            self.forget(claim_id)
            # Whoever was dropped is told nothing.
            with contextlib.suppress(ClientClosed):
                self._lost(claim_id)
            return
        except ZaqarError as error:
            LOG.info('Claim %s is not renewed yet: %s', claim_id, error)
        with self._changed:
            if claim_id in self._due:
                self._due[claim_id] = time.monotonic() + seconds / 2
