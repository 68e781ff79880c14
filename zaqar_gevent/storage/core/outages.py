"""Logs outages of a store: each one once, not once for each request that fails."""

from __future__ import annotations

import time

from oslo_log import log

from zaqar_gevent.storage.errors import StoreDamaged, StoreUnavailable

LOG = log.getLogger(__name__)

REFUSAL_SECONDS = 60.0
"""How long the same refusal of single requests is not logged again."""

_MAX_REMEMBERED = 1000


class OutageLog:
    """Logs the failures of one store.

    Not for native threads: the locks of logging are patched.
    """

    def __init__(self) -> None:
        self._outages: dict[str, str] = {}
        self._damages: set[str] = set()
        self._refused_until: dict[str, float] = {}

    @property
    def is_on(self) -> bool:
        """Whether no call has succeeded since the last failure."""
        return bool(self._outages)

    def failed(self, error: StoreUnavailable) -> None:
        """Log that the store fails; the same text again only after a call has succeeded.

        Damage is logged once, whatever succeeds meanwhile.
        """
        text = str(error)
        if isinstance(error, StoreDamaged):
            if text in self._damages:
                return
            _make_room(self._damages)
            self._damages.add(text)
        else:
            if text in self._outages:
                return
            _make_room(self._outages)
            self._outages[text] = error.store
        LOG.error('%s', text)

    def refused(self, error: StoreUnavailable) -> None:
        """Log that the store refuses some calls and serves others; once a minute."""
        text = f'{error.store} refuses calls: {error.reason}'
        now = time.monotonic()
        if now < self._refused_until.get(text, 0.0):
            return
        _make_room(self._refused_until)
        self._refused_until[text] = now + REFUSAL_SECONDS
        LOG.error('%s', text)

    def succeeded(self) -> None:
        """Note that a call has succeeded: the next failure is another outage."""
        if self._outages:
            stores = dict.fromkeys(self._outages.values())
            self._outages.clear()
            for store in stores:
                LOG.info('%s is available again.', store)


def _make_room(remembered: dict[str, str] | dict[str, float] | set[str]) -> None:
    if len(remembered) >= _MAX_REMEMBERED:
        remembered.clear()
