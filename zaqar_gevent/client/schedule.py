"""The times at which scheduled messages are to be delivered."""

from __future__ import annotations

import datetime

Moment = datetime.datetime | float | str
"""A datetime with a time zone, seconds since the epoch, or a text by RFC 3339."""


def delivery_time(given: Moment | None) -> float | str | None:
    """A time as the server reads it; raises ValueError for a datetime without a time zone."""
    if not isinstance(given, datetime.datetime):
        return given
    if given.tzinfo is None:
        raise ValueError(
            f'deliver_at={given.isoformat()} has no time zone; give one, as '
            'datetime.now(timezone.utc) + timedelta(hours=1) has, or seconds since the epoch'
        )
    return given.astimezone(datetime.UTC).isoformat()
