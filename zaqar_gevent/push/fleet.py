"""The servers that share a store, and the key by which they know each other's URLs.

A connection that subscribes is a row in the store with the URL of its server as the subscriber.
Clients can make rows too, so these URLs are signed, each for the queue that is subscribed to.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from logging import WARNING

from oslo_log import log

from zaqar_gevent.api import documents
from zaqar_gevent.api.push import Source
from zaqar_gevent.logs import level_of
from zaqar_gevent.storage.interface import ControlDriver

LOG = log.getLogger(__name__)

# The key is metadata of a queue, since every control store keeps those. No client can name the
# project: the name begins with a space.
PROJECT = ' zaqar_gevent'
QUEUE = 'fleet'

_KEY_BYTES = 32
_RELOAD_SECONDS = 10.0
_MOST_KNOWN = 10_000


class Fleet:
    """Signs URLs with the key of the fleet, and recognises URLs that it signed.

    load: gives the key that is in the store; it is given the one to store where there is none.
    """

    def __init__(
        self, load: Callable[[str], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._clock = clock
        self._keys: list[str] = []
        self._reload_at = 0.0
        self._known: dict[tuple[str, Source], bool] = {}

    def sign(self, place: str, source: Source) -> str:
        """The URL of a listener at `place` to a queue; raises the store's errors."""
        if not self._keys:
            self._reload()
        return f'{place}-{_signature(self._keys[-1], place, source)}'

    def is_genuine(self, url: str, source: Source) -> bool:
        """Whether a server of the fleet has signed this URL for this queue."""
        known = self._known.get((url, source))
        if known is None or not (known or self._clock() < self._reload_at):
            known = self._verify(url, source)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[url, source] = known
        return known

    def has_verified(self, url: str, source: Source) -> bool:
        """Whether `is_genuine` has found so before; no key is ever withdrawn."""
        return self._known.get((url, source), False)

    def _verify(self, url: str, source: Source) -> bool:
        if self._is_signed(url, source):
            return True
        if self._clock() < self._reload_at:
            return False
        try:
            self._reload()
        except Exception as error:
            LOG.log(
                level_of(error, WARNING), "The key of the fleet's servers cannot be read: %s", error
            )
            return False
        return self._is_signed(url, source)

    def _is_signed(self, url: str, source: Source) -> bool:
        place, _, given = url.rpartition('-')
        return any(
            hmac.compare_digest(_signature(key, place, source).encode(), given.encode())
            for key in self._keys
        )

    def _reload(self) -> None:
        """Know the key in the store, which may be another since the store was emptied."""
        own = self._keys[-1] if self._keys else secrets.token_hex(_KEY_BYTES)
        key = self._load(own)
        self._reload_at = self._clock() + _RELOAD_SECONDS
        if key not in self._keys:
            self._keys.append(key)
            self._known.clear()


def load_from(control: ControlDriver) -> Callable[[str], str]:
    """Loads the key from a control store."""

    def load(new: str) -> str:
        queues = control.queue_controller
        queues.create(QUEUE, metadata={'key': new}, project=PROJECT)
        key: str = queues.get_metadata(QUEUE, project=PROJECT)['key']
        return key

    return load


def _signature(key: str, place: str, source: Source) -> str:
    signed = documents.encode_json([place, source.project_id, source.name])
    return hmac.digest(bytes.fromhex(key), signed, 'sha256').hex()
