"""The formats of encryption, for tests that care for the values of bodies only."""

from __future__ import annotations

from typing import Any

from zaqar_gevent.bodies import Body
from zaqar_gevent.encryption import authenticated, upstream


class AuthenticatedFormat(authenticated.AuthenticatedFormat):
    """This server's, from value to value."""

    def encrypt(self, value: Any, project: str | None, queue: str) -> bytes:
        return super().encrypt(Body.of(value), project, queue)

    def decrypt(self, encrypted: bytes, project: str | None) -> Any:
        return super().decrypt(encrypted, project).value


class UpstreamFormat(upstream.UpstreamFormat):
    """Upstream's, from value to value."""

    def encrypt(self, value: Any, project: str | None, queue: str) -> bytes:
        return super().encrypt(Body.of(value), project, queue)

    def decrypt(self, encrypted: bytes, project: str | None) -> Any:
        return super().decrypt(encrypted, project).value
