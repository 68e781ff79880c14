"""Groups of messages, and how claims take from them by the settings of a queue."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

MAX_LENGTH = 128
"""Characters of the name of a group."""

# What SQLite, headers or encodings would change or refuse.
_REFUSED = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff]')


def refusal_of(group: str) -> str | None:
    """Why this cannot be the name of a group; None if it can."""
    # PERF: what is printable has nothing that is refused, and is told faster.
    if 1 <= len(group) <= MAX_LENGTH and (group.isprintable() or not _REFUSED.search(group)):
        return None
    return (
        f'The name of a group must have 1 to {MAX_LENGTH} characters, and no control characters; '
        f'{group[:MAX_LENGTH]!a} has {len(group)}'
    )


class GroupMode(enum.IntFlag):
    """The settings of a queue that concern groups.

    ORDERED: while a message of a group is held, or waits for its retry, no other of that group is
        given to anybody. FAIR: claims take from the groups in turn.
    """

    NONE = 0
    ORDERED = 1
    FAIR = 2


def are_ordered(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of a queue ask for ordered groups."""
    return metadata.get('_ordered_groups') is True


def mode_of(metadata: Mapping[str, Any]) -> GroupMode:
    """The mode that the metadata of a queue ask for."""
    mode = GroupMode.NONE
    if are_ordered(metadata):
        mode |= GroupMode.ORDERED
    if metadata.get('_fair_groups') is True:
        mode |= GroupMode.FAIR
    return mode
