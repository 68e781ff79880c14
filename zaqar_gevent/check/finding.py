"""The findings of checks."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Verdict(Enum):
    """The severity of a finding."""

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
