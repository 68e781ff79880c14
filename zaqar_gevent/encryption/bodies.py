"""Encrypts bodies when they are posted and decrypts them when they are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from oslo_log import log

from zaqar_gevent.bodies import Body, Encoding, ValueBody
from zaqar_gevent.encryption.formats import Format, Unreadable

LOG = log.getLogger(__name__)

_WARN_SECONDS = 60.0


class BodyCipher:
    """Encrypts bodies in one format, and decrypts them in any of some formats.

    can_encrypt: whether there is a key.

    writer: the format to encrypt in; None without a key.
    readers: the formats to decrypt.
    has_public_key: whether bodies are encrypted with a key that everybody knows.
    clock: seconds that do not go back.
    """

    def __init__(
        self,
        writer: Format | None,
        readers: Sequence[Format],
        *,
        has_public_key: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._readers = tuple(readers)
        self._has_public_key = has_public_key
        self._clock = clock
        self._warn_at = clock()

    @property
    def can_encrypt(self) -> bool:
        return self._writer is not None

    def encrypt(
        self, messages: Sequence[dict[str, Any]], project: str | None, queue: str
    ) -> list[dict[str, Any]]:
        """Copies of messages that are posted to a queue, with encrypted bodies.

        Raises `RuntimeError` without a key.
        """
        if self._writer is None:
            raise RuntimeError('there is no key to encrypt with')
        if self._has_public_key:
            self._has_public_key = False
            LOG.warning(
                'Messages of encrypted queues are encrypted with the default key, which everybody '
                'knows: set [encryption] keys'
            )
        encrypt = self._writer.encrypt
        return [
            {
                **message,
                'body': Body(Encoding.ENCRYPTED, encrypt(message['body'], project, queue)),
            }
            for message in messages
        ]

    def decrypt(self, body: Body, project: str | None) -> Body:
        """The body that was encrypted; where that cannot be told, `body` as it is, as text.

        A body that is not ASCII was not encrypted: upstream's WebSocket stores binary values, too.

        project: the one that the message belongs to.
        """
        encrypted = bytes(body.data)
        if not encrypted.isascii():
            return ValueBody(encrypted)
        reasons = []
        for reader in self._readers:
            try:
                return reader.decrypt(encrypted, project)
            except Unreadable as error:
                reasons.append(str(error))
        self._warn(reasons)
        return ValueBody(encrypted.decode())

    def _warn(self, reasons: Sequence[str]) -> None:
        """Say so, but not for each message."""
        now = self._clock()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_SECONDS
            LOG.warning(
                'A message cannot be decrypted and is given out as it is stored: %s',
                '; '.join(reasons) or 'there is no key',
            )
