"""Messages that are delivered at a time, instead of after a delay."""

from __future__ import annotations

import datetime

import msgspec

from zaqar_gevent.api import errors

MAX_SECONDS = 14 * 24 * 3600
"""How far ahead a message may be scheduled by default."""


def delay_until(deliver_at: float | str, now: float, most: float, place: str) -> float:
    """Seconds from `now` on, 0 for a time that has passed.

    deliver_at: by RFC 3339, or in seconds since the epoch. most: the largest result.

    Raises `errors.BadRequest` for what is no such time, or too far ahead.
    """
    moment = _parse(deliver_at, place) if isinstance(deliver_at, str) else deliver_at
    delay = moment - now
    if delay > most:
        raise errors.BadRequest(
            f'A message may be scheduled at most {most:.0f} seconds ahead - at `{place}`'
        )
    return max(0.0, delay)


def _parse(text: str, place: str) -> float:
    try:
        moment = msgspec.convert(text, datetime.datetime)
    except msgspec.ValidationError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise errors.BadRequest(
            'The time must be like 2026-11-26T12:00:00Z (RFC 3339), or a number of seconds since '
            f'the epoch - at `{place}`'
        )
    return moment.timestamp()
