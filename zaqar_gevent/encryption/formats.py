"""The formats of encrypted bodies, and the interface of each."""

from __future__ import annotations

from typing import Protocol

from zaqar_gevent.bodies import Body

AUTHENTICATED = 'aes-gcm'
UPSTREAM = 'upstream'
NAMES = (AUTHENTICATED, UPSTREAM)
"""The values of the options `write_format` and `read_formats`."""


class Unreadable(ValueError):
    """A body cannot be decrypted: another format, key or project, or damage."""


class Format(Protocol):
    """One way to encrypt bodies. Encrypted bodies are ASCII, whichever the format."""

    def encrypt(self, body: Body, project: str | None, queue: str) -> bytes:
        """A body that is posted to a queue of a project, encrypted with the first key."""

    def decrypt(self, encrypted: bytes, project: str | None) -> Body:
        """The body that was encrypted; raises `Unreadable`."""
