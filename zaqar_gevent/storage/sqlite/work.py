"""What the writing thread is given to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

Outcome = Any
"""A result, or the exception that the call is to raise."""


def coalesced(
    work: Callable[[sqlite3.Cursor, Sequence[tuple[Any, ...]]], list[Outcome]],
) -> Callable[..., Outcome]:
    """Make `work` serve all its calls of one transaction at once, given their arguments.

    Every statement is a hand-over of the GIL, so a few large ones beat many small ones.
    """
    work.is_coalesced = True  # type: ignore[attr-defined]
    return work
