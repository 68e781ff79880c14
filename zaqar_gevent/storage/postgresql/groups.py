"""Claims of queues with groups, whose locks are waited for before anything else."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from zaqar_gevent.storage.postgresql import schema
from zaqar_gevent.storage.postgresql.calls import PendingCall

MOST_REMEMBERED = 10_000
"""Queues that a process remembers to have groups."""

MOST_BEHIND = 10_000
"""Steps of giving messages to their groups that one claim takes at most, before it takes those that
it has found."""

MOST_WAITS = 500
"""How often one claim waits for others to be over, `WAIT_SECONDS` each."""

WAIT_SECONDS = 0.01


def lock(schema_name: str, calls: Sequence[PendingCall]) -> PendingCall:
    """What is sent before some calls, whose first arguments are a project and a queue."""
    names = {tuple((value or b'').decode() for value in call.values[:2]) for call in calls}
    statement = schema.function(schema_name, 'lock_groups', 1)
    return PendingCall(statement, (msgspec.json.encode(sorted(names)),), calls[0].until)
