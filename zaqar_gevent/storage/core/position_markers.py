"""Markers of stores with numbered rows: the position of a message, with the name of an epoch.

An epoch begins whenever positions may be given again that were given before, as after a backup has
been restored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from zaqar_gevent.storage.core.pages import decode_id, encode_id

NAME_LENGTH = 8
"""Hexadecimal digits in the name of an epoch."""

_SEPARATOR = '-'
_NAME_DIGITS = frozenset('0123456789abcdef')


class Marker(NamedTuple):
    """The position of a message, and the name of its epoch or of a later one.

    Without an epoch it is the message's id.
    """

    id: int
    epoch: str | None = None


START = Marker(0)
"""Before all messages; always valid."""


def decode(public: Any) -> Marker | None:
    """The position in a client's marker; None if it cannot be a marker."""
    if not public:
        return START
    if not isinstance(public, str):
        return None
    number, separator, epoch = public.partition(_SEPARATOR)
    decoded = decode_id(number)
    if decoded is None:
        return None
    if not separator:
        return Marker(decoded)
    if len(epoch) != NAME_LENGTH or not _NAME_DIGITS.issuperset(epoch):
        return None
    return Marker(decoded, epoch)


def encode(number: int, epoch: str) -> str:
    """The marker that clients get."""
    return f'{encode_id(number)}{_SEPARATOR}{epoch}'
