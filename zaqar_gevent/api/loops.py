"""Webhooks that lead back to a queue which the message has come through.

Each request of a webhook names the queues that its message has come through, so a server recognises
its own; the names are digests, which say nothing to others.
"""

from __future__ import annotations

import hashlib
import socket

from oslo_config import cfg

from zaqar_gevent.api import errors

HEADER = 'Zaqar-Webhook-Path'

MAX_QUEUES = 4
"""Queues that a message may be passed on to by webhooks."""

_DIGEST_BYTES = 6


class Loops:
    """Recognises the queues of servers that share a store.

    is_local: whether only servers of one machine can share it.
    """

    def __init__(self, conf: cfg.ConfigOpts, *, is_local: bool) -> None:
        store = conf.drivers.message_store
        uri = getattr(conf[f'drivers:message_store:{store}'], 'uri', '')
        host = socket.gethostname() if is_local else ''
        parts = (store, str(uri), host, conf.signed_url.secret_key or '')
        self._key = hashlib.sha256('\0'.join(parts).encode()).digest()

    def check(self, passed: str | None, project: str | None, queue_name: str) -> None:
        """Raise `errors.BadRequest` for messages that have been in this queue or in too many.

        passed: the queues they have come through; None for those that no webhook brings.
        """
        if passed is None:
            return
        marks = [each.strip() for each in passed.split(',')]
        if len(marks) > MAX_QUEUES or self._mark(project, queue_name) in marks:
            raise errors.BadRequest(
                'A webhook brings this message, which has been in this queue or in more than '
                f'{MAX_QUEUES} others: the webhooks are a loop - at `{HEADER}`',
                title='Webhook loop',
            )

    def extend(self, passed: str | None, project: str | None, queue_name: str) -> str:
        """The path to send on with messages that were checked and are in the queue now."""
        mark = self._mark(project, queue_name)
        return f'{passed},{mark}' if passed else mark

    def _mark(self, project: str | None, queue_name: str) -> str:
        named = f'{project or ""}/{queue_name}'.encode()
        return hashlib.blake2b(named, key=self._key, digest_size=_DIGEST_BYTES).hexdigest()
