"""Tells whether the store works, cheaply enough to be asked often."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from oslo_log import log

from zaqar_gevent.logs import level_of

LOG = log.getLogger(__name__)

FRESH_SECONDS = 0.5
"""For how long an answer is given again."""

PATIENCE_SECONDS = 2.0
"""After this time a store that has not answered is not well."""


class Health:
    """The last known health of a store.

    is_alive: asks the store; one at a time.
    """

    def __init__(self, is_alive: Callable[[], bool]) -> None:
        self._is_alive = is_alive
        self._is_well = True
        self._fresh_until = 0.0
        self._asked_at: float | None = None

    def is_well(self) -> bool:
        """Whether the store works, at most half a second ago."""
        now = time.monotonic()
        if self._asked_at is not None:
            return self._is_well and now - self._asked_at < PATIENCE_SECONDS
        if now >= self._fresh_until:
            self._asked_at = now
            try:
                self._is_well = self._ask()
            finally:
                self._asked_at = None
            self._fresh_until = time.monotonic() + FRESH_SECONDS
        return self._is_well

    def _ask(self) -> bool:
        try:
            return self._is_alive()
        except Exception as error:
            # Drivers differ in what they raise; none of it means that they work.
            level = level_of(error, logging.WARNING)
            LOG.log(level, 'The store cannot say whether it works: %s', type(error).__name__)
            return False
