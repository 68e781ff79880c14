"""What a client was let in with: a token or a pre-signed URL, and for how long it is valid.

The subscriptions and consumers of a connection end with the grant that they were made with.
"""

from __future__ import annotations

import enum
import time


class Reason(enum.StrEnum):
    """Why a grant has ended."""

    PROJECT_CHANGED = 'project_changed'
    USER_CHANGED = 'user_changed'
    TOKEN_EXPIRED = 'token_expired'  # noqa: S105
    TOKEN_REVOKED = 'token_revoked'  # noqa: S105
    SIGNATURE_EXPIRED = 'signature_expired'

    @property
    def description(self) -> str:
        """The same, for people."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    Reason.PROJECT_CHANGED: 'The connection has authenticated for another project.',
    Reason.USER_CHANGED: 'The connection has authenticated as another user.',
    Reason.TOKEN_EXPIRED: 'The token that it was made with has expired.',
    Reason.TOKEN_REVOKED: 'The token that it was made with has been revoked.',
    Reason.SIGNATURE_EXPIRED: 'The pre-signed URL that it was made with has expired.',
}


class Grant:
    """Lets a client use a project until it expires or is ended.

    expires_at: in seconds since the epoch, None for never: tokens and signatures end by the wall
    clock, also while the machine is suspended. expiry: what its expiry means.
    """

    __slots__ = ('_expiry', '_reason', 'expires_at')

    def __init__(
        self, expires_at: float | None = None, expiry: Reason = Reason.TOKEN_EXPIRED
    ) -> None:
        self.expires_at = expires_at
        self._expiry = expiry
        self._reason: Reason | None = None

    @property
    def reason(self) -> Reason | None:
        """Why it has ended; None while it lasts. What has expired cannot be prolonged."""
        if self._reason is None and self.expires_at is not None and time.time() >= self.expires_at:
            self._reason = self._expiry
        return self._reason

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.reason is not None

    def end(self, reason: Reason) -> None:
        """End it now, unless it has ended already."""
        if not self.is_over:
            self._reason = reason


UNLIMITED = Grant()
"""The grant of what is not bound to a connection."""
