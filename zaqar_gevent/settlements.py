"""Settles single messages of claims: many in one call, each with its own outcome."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Settle(enum.Enum):
    """DELETE: the message is done with. RELEASE: it can be claimed again, perhaps after a delay.
    REJECT: it goes to the dead letter queue. EXTEND: its lease begins anew.
    """

    DELETE = enum.auto()
    RELEASE = enum.auto()
    REJECT = enum.auto()
    EXTEND = enum.auto()


class Settlement(NamedTuple):
    """One message and how it is settled.

    claim_id: of the claim that holds it; None to delete a message that no claim holds. delay: in
        seconds, before a released message can be claimed; None for that of the queue. reason: for
        which it is rejected. ttl, grace: of the lease, in seconds.
    """

    kind: Settle
    message_id: str
    claim_id: str | None
    delay: float | None = None
    reason: str | None = None
    ttl: int = 0
    grace: int = 0
