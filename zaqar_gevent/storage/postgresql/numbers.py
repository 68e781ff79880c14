"""Numbers of clients that may be larger than PostgreSQL's type `integer` holds."""

from __future__ import annotations

MAX_INTEGER = 2**31 - 1
"""The largest `integer`. As a TTL it is 68 years."""

MAX_LEASE = 10**9
"""The longest TTL and grace of a claim, in seconds: 31 years. Their sum is an `integer`, too."""


def clamp(number: int, most: int = MAX_INTEGER) -> int:
    """The number, or `most` if it is larger."""
    return min(number, most)
