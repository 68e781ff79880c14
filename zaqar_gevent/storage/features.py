"""The features of a store, declared by its driver; see `zaqar_gevent.storage.interface`.

A new ability of some stores is one more member here, false by default. Nothing else asks a driver
for its name or its methods.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

_POSITION = '[0-9a-f]{16}(-[0-9a-f]{8})?'
_UUID = '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'
_NUMBER = '[0-9]+'
_ANY = '(?s:.*)'


class MarkerKind(enum.Enum):
    """The kind of a store's markers; the value is the regular expression that they match."""

    POSITION = _POSITION
    """Places in the queue, which keep their order even where the message is gone."""

    MESSAGE_ID = _UUID
    """Ids of messages. Whether anything is found after one that is gone, the store knows."""

    NUMBER = _NUMBER
    """Numbers that only the store can tell, after each page."""

    OPAQUE = _ANY
    """Any text, after each page."""

    MIXED = f'{_POSITION}|{_UUID}|{_NUMBER}'
    """Of several pools, whose stores may differ."""


class Feature(enum.Enum):
    """Features that only some stores have; the value is for error messages.

    A request that needs what the store of its queue cannot do is refused with 400.
    """

    ATTRIBUTES = 'keep attributes of messages'
    RETRIES = 'delay retries'
    SETTLEMENTS = 'settle messages one by one'
    SCHEDULES = 'deliver messages at a time'
    GROUPS = 'keep groups of messages'
    REDRIVES = 'move dead letters back'


@dataclass(frozen=True)
class StoreFeatures:
    """The features of a store beyond those that every store has.

    markers: what its markers are.
    post_id_seconds: for how long the `post_id` of a post is remembered; 0 if it cannot be given.
    checks_queues: whether a post to a queue that does not exist fails, so that metadata may be
        remembered for a moment.
    carries_bodies: whether bodies are taken and given as a `Body`, instead of as values.
    restores: whether popped messages can be put back in their places.
    keeps_places: whether it can tell if a list goes on after a message that is gone.
    finds_claimable: whether it can tell, in one read, which of many queues have something to claim.
    counts_subscriptions: whether it can count the subscriptions of a queue.
    reports_due: whether it reports delayed messages when they become visible.
    is_local: whether only processes of one machine can use the store.
    bounds_reads: whether it breaks off reads that take too long, by itself.
    has_exact_stats: whether counts are right at every moment, expired messages not included.
    counts_messages: whether it counts the messages of a queue without walking through them.
    counts_usage: whether it counts the bytes and the subscriptions of projects.
    offered: what clients may ask for that upstream's interface does not have.
    remedy: what an operator can do so that it offers more; empty for nothing.
    """

    markers: MarkerKind
    post_id_seconds: int = 0
    checks_queues: bool = False
    carries_bodies: bool = False
    restores: bool = False
    keeps_places: bool = False
    finds_claimable: bool = False
    counts_subscriptions: bool = False
    reports_due: bool = False
    is_local: bool = False
    bounds_reads: bool = False
    has_exact_stats: bool = False
    counts_messages: bool = False
    counts_usage: bool = False
    offered: frozenset[Feature] = frozenset()
    remedy: str = ''
