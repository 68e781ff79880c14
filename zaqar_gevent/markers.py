"""Markers of messages, as far as the API, the push hub and the stores have to agree on them.

To clients a marker is opaque. A store makes it of a message's position, and adds what tells whether
this store, with this history, can have given it. The embedded store's position is the message's id,
unless the message was delayed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zaqar.storage import errors

from zaqar_gevent.storage.features import MarkerKind

_FULL = re.compile('([0-9a-f]{16})-[0-9a-f]{8}')


class MarkerNotGiven(errors.ExceptionBase):
    """The store cannot have given this marker: it was made anew, or restored from a backup."""

    msg_format = 'The marker {marker} is not one that this store has given'

    def __init__(self, marker: str) -> None:
        super().__init__(marker=marker)
        self.marker = marker


# The start of every queue, which clients poll from.
_START = '0{16}'


def check_form(marker: str, kind: MarkerKind) -> None:
    """Raise `MarkerNotGiven` for a text that is no marker of this kind."""
    if not re.fullmatch(f'{_START}|{kind.value}', marker):
        raise MarkerNotGiven(marker)


def of_positions(positions: Sequence[str], last: str) -> list[str]:
    """The marker of each message of a page, whose marker is `last`.

    It is the message's position with what follows the position in `last`.
    """
    if not positions or not last.startswith(positions[-1]):
        return list(positions)
    addition = last[len(positions[-1]) :]
    return [one + addition for one in positions]


def bare(marker: str) -> str:
    """The id of a message in a marker of the embedded store; any other marker as it is."""
    found = _FULL.fullmatch(marker)
    return marker if found is None else found[1]
