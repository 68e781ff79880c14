"""What a store may be able to do beyond upstream's interface.

A driver declares its `features`. A request that needs another one is refused with 400.
"""

from __future__ import annotations

import enum


class Feature(enum.Enum):
    """The value says what the store would have to do, for error messages."""

    ATTRIBUTES = 'keep attributes of messages'


NO_FEATURES: frozenset[Feature] = frozenset()
