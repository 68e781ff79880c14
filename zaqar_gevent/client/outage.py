"""Tells once that a server cannot be reached, and once that it can be again."""

from __future__ import annotations

import logging
import threading
import time

LOG = logging.getLogger(__name__)

# A server that is back sooner, as after a restart, is not worth a warning.
TELL_SECONDS = 3.0


class Outage:
    """Keeps track of whether a server can be reached; any thread may report.

    address: the server's URL, for the log.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._began: float | None = None
        self._is_told = False

    def __str__(self) -> str:
        return f'There is no connection to {self.address or "the server"}'

    def failed(self, problem: str, retry_seconds: float = 0.0) -> None:
        """An attempt to reach the server failed; the next one comes after `retry_seconds`.

        The warning comes with the last attempt of the first TELL_SECONDS.
        """
        with self._lock:
            now = time.monotonic()
            if self._began is None:
                self._began = now
            if self._is_told or now + retry_seconds - self._began < TELL_SECONDS:
                return
            self._is_told = True
        LOG.warning(
            'No connection to %s: %s The client goes on trying.', self.address, _sentence(problem)
        )

    def over(self) -> None:
        """The server has answered."""
        # PERF: nearly always there is no outage.
        if self._began is None:
            return
        with self._lock:
            began, self._began = self._began, None
            is_told, self._is_told = self._is_told, False
        if is_told and began is not None:
            LOG.warning(
                'The connection to %s is back, after %.0f s.',
                self.address,
                time.monotonic() - began,
            )


def _sentence(text: str) -> str:
    return f'{text.rstrip(".")}.'
