"""The token or pre-signed URL that a request was made with, and how long it is valid.

Subscriptions and consumers of a connection end with the grant of the request that made them.
"""

from __future__ import annotations

import enum
import math
import time

from zaqar_gevent.api import errors


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

    @property
    def refusal(self) -> errors.APIError:
        """The error for a request whose grant has ended."""
        if self in (Reason.TOKEN_EXPIRED, Reason.TOKEN_REVOKED):
            return errors.Unauthorized(self.description)
        return errors.Forbidden(self.description)


_DESCRIPTIONS = {
    Reason.PROJECT_CHANGED: 'The connection has authenticated for another project.',
    Reason.USER_CHANGED: 'The connection has authenticated as another user.',
    Reason.TOKEN_EXPIRED: 'The token that it was made with has expired.',
    Reason.TOKEN_REVOKED: 'The token that it was made with has been revoked.',
    Reason.SIGNATURE_EXPIRED: 'The pre-signed URL that it was made with has expired.',
}


class Grant:
    """Allows a client to use a project until it expires or is ended.

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
    def seconds_left(self) -> float:
        """How long it still lasts, in seconds, unless it is ended before."""
        return math.inf if self.expires_at is None else self.expires_at - time.time()

    @property
    def is_over(self) -> bool:
        """Whether it has ended. PERF: it is asked before each push, mostly of what has no end."""
        return self._reason is not None or (self.expires_at is not None and self.reason is not None)

    def end(self, reason: Reason) -> None:
        """End it now, unless it has ended already."""
        if not self.is_over:
            self._reason = reason


UNLIMITED = Grant()
"""The grant of something that is not bound to a connection."""
