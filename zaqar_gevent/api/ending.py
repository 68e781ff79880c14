"""Why a subscription ends that its client has not ended, and whose grant still lasts."""

from __future__ import annotations

import enum


class End(enum.StrEnum):
    """The reason that the client is given; `zaqar_gevent.api.grants.Reason` has those of grants."""

    DELETED = 'deleted'
    EXPIRED = 'expired'
    UNKNOWN_MARKER = 'unknown_marker'

    @property
    def description(self) -> str:
        """The same, for people."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    End.DELETED: 'The subscription was deleted, or its queue was purged of subscriptions.',
    End.EXPIRED: 'The time to live that was given to the subscription is over.',
    End.UNKNOWN_MARKER: (
        'The store was made anew or restored from a backup; subscribe from the start of the queue.'
    ),
}
