"""The durability of acknowledged writes, and how a connection gets it confirmed."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

# WAITAOF came with this version; Valkey tells the version of Redis that it is compatible with.
_WAITAOF_VERSION = (7, 2)

_REPLICA_SHARE = 0.8
"""How long a replica is waited for, as a share of the time in which the server has to answer."""
_FSYNC_SECONDS = 2.5
"""With `appendfsync everysec`, the next fsync may be more than a second away."""


class Durability(enum.StrEnum):
    """MEMORY: whatever Redis does by itself. REPLICA: the loss of the master. FSYNC: a restart."""

    MEMORY = 'memory'
    REPLICA = 'replica'
    FSYNC = 'fsync'


class Confirmation(NamedTuple):
    """A command that is answered when all writes of the connection before it are safe.

    seconds: after which it gives up. failure: the reason to tell then.
    """

    command: tuple[Any, ...]
    seconds: float
    failure: str

    def is_given(self, answer: Any) -> bool:
        """Whether the answer says that the writes are safe."""
        count = answer[0] if isinstance(answer, list) else answer
        return isinstance(count, int) and count > 0


class Unsupported(Exception):
    """The server cannot confirm what is asked for; the reason, as the end of a sentence."""


def confirm_by_replica(timeout: float) -> Confirmation:
    """Durability that one replica confirms; timeout: seconds in which the server must answer."""
    seconds = timeout * _REPLICA_SHARE
    command = 'WAIT', 1, max(1, int(seconds * 1000))
    return Confirmation(command, seconds, f'no replica has confirmed it within {seconds:g} s')


def confirm_by_fsync(
    version: tuple[int, ...], policy: str | None, *, has_log: bool
) -> Confirmation | None:
    """Durability that an fsync confirms; None if each answer confirms it, or `Unsupported`.

    version: the server's. policy: its `appendfsync`; None where that cannot be known. has_log:
    whether it has an append-only file.
    """
    if not has_log:
        raise Unsupported(
            'has no append-only file, which durability = fsync needs. Set appendonly to yes.'
        )
    if policy == 'always':
        # Redis answers after the fsync.
        return None
    if policy == 'no':
        raise Unsupported(
            'never calls fsync (appendfsync no). For durability = fsync, set it to always.'
        )
    if version < _WAITAOF_VERSION:
        raise Unsupported(
            'cannot tell when a write has been fsynced (WAITAOF, from Redis 7.2 on). For '
            'durability = fsync, set appendfsync to always.'
        )
    command = 'WAITAOF', 1, 0, int(_FSYNC_SECONDS * 1000)
    return Confirmation(
        command, _FSYNC_SECONDS, f'it has not been fsynced within {_FSYNC_SECONDS:g} s'
    )
