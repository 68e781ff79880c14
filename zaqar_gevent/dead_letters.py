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

    msg_format = 'Messages of queue {queue} of project {project} cannot be rejected: {reason}'

    def __init__(self, queue: str, project: str | None, reason: str) -> None:
        super().__init__(queue=queue, project=project, reason=reason)


class ChainTooLong(Exception):
    """More than `MAX_CHAIN` dead letter queues follow each other."""

    def __init__(self) -> None:
        super().__init__(f'At most {MAX_CHAIN} dead letter queues may follow one another')


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
    if not isinstance(most, int) or most < 1:
        return False
    return find_obstacle(queue, metadata, get_metadata) is None


def find_obstacle(
    queue: str, metadata: Mapping[str, Any], get_metadata: Callable[[str], Mapping[str, Any]]
) -> str | None:
    """Why messages of `queue` cannot be moved to its dead letter queue; None if they can.

    Arguments as `find_cycle`.
    """
    if not metadata.get('_dead_letter_queue'):
        return 'it has no dead letter queue (_dead_letter_queue)'
    try:
        cycle = find_cycle(queue, metadata, get_metadata)
    except ChainTooLong as error:
        return str(error)
    return describe_cycle(cycle) if cycle else None


def describe_cycle(cycle: list[str]) -> str:
    """What is wrong with a cycle of dead letter queues."""
    return f'dead letters would come back to where they came from ({" -> ".join(cycle)})'
