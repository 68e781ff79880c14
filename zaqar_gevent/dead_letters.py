"""Dead letter queues that lead back to where a message came from.

A message that is moved in a circle is never delivered: each claim would only move it on. The API
refuses such metadata, and the stores leave messages where they are when they find it all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zaqar.storage import errors

MAX_CHAIN = 32
"""How many dead letter queues may follow each other."""


class NoDeadLetterQueue(errors.ExceptionBase):
    """A message cannot be rejected: its queue has no dead letter queue that can be used."""

    msg_format = (
        'Queue {queue} of project {project} has no dead letter queue in the same store '
        '(_dead_letter_queue) to put rejected messages into'
    )

    def __init__(self, queue: str, project: str | None) -> None:
        super().__init__(queue=queue, project=project)


class ChainTooLong(Exception):
    """More than `MAX_CHAIN` dead letter queues follow each other."""


def find_cycle(
    queue: str, metadata: Mapping[str, Any], get_metadata: Callable[[str], Mapping[str, Any]]
) -> list[str]:
    """The queues through which the dead letters of `queue` come back to it; empty if they do not.

    metadata: of `queue`. get_metadata: returns the metadata of another queue, empty if it has none.

    Raises `ChainTooLong`.
    """
    chain = [queue]
    while isinstance(following := metadata.get('_dead_letter_queue'), str) and following:
        if following == queue:
            return [*chain, queue]
        if following in chain:
            # A cycle that `queue` is not part of: its own dead letters come to rest there.
            return []
        if len(chain) > MAX_CHAIN:
            raise ChainTooLong
        chain.append(following)
        metadata = get_metadata(following)
    return []


def can_dead_letter(
    queue: str, metadata: Mapping[str, Any], get_metadata: Callable[[str], Mapping[str, Any]]
) -> bool:
    """Whether `queue` has dead letters that stay where they are moved; arguments as `find_cycle`.

    A message is claimed at least once before it is one.
    """
    most = metadata.get('_max_claim_count')
    if not metadata.get('_dead_letter_queue') or not isinstance(most, int) or most < 1:
        return False
    try:
        return not find_cycle(queue, metadata, get_metadata)
    except ChainTooLong:
        return False
