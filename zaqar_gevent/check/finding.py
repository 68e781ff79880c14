"""What a check finds."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """What a finding comes to."""

    SOUND = 'sound'
    DAMAGED = 'damaged'
    UNCHECKED = 'unchecked'
    IGNORED = 'ignored'


class Finding(NamedTuple):
    """One line for the operator.

    subject: what was looked at. text: what was found.
    """

    verdict: Verdict
    subject: str
    text: str
