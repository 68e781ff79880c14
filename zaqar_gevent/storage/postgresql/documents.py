"""Ids of messages and claims as parameters of statements."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

from zaqar_gevent.storage.core.pages import decode_id

# Those that were copied from another store may be UUIDs with hyphens.
_TOKEN = re.compile('[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')


def decode_token(claim: Any) -> str | None:
    """The claim whose id this is, as a parameter; None for what cannot be one."""
    if isinstance(claim, str) and _TOKEN.fullmatch(claim):
        return claim
    if isinstance(claim, uuid.UUID):
        return claim.hex
    return None


def decode_numbers(public: Sequence[Any]) -> str:
    """The numbers of those that are ids, as an array."""
    numbers = [decode_id(one) for one in public]
    return encode_array([one for one in numbers if one is not None])


def encode_name_marker(marker: str | None) -> str:
    """The name before the first one of a page; '' for the first page.

    No name has the character NUL, so the same names come after what stands before it.
    """
    return (marker or '').partition('\0')[0]


def encode_array(values: Sequence[object]) -> str:
    """An array of elements that need no quotes."""
    return f'{{{",".join(map(str, values))}}}'
