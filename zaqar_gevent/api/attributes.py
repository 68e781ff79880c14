"""Attributes: texts by name that travel with a message beside its body."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

MAX_NAME = 128
"""Characters of a name."""

_NAME = re.compile(r'[A-Za-z0-9_.-]+')

Attributes = Mapping[str, str]


class AttributeLimits:
    """How many attributes a message may have, and how long they may be.

    most: attributes of a message. most_bytes: of their names and values together, in UTF-8.
    """

    def __init__(self, most: int = 32, most_bytes: int = 8192) -> None:
        self.most = most
        self.most_bytes = most_bytes

    def refusal_of(self, attributes: Attributes) -> str | None:
        """Why a message cannot have these attributes; None if it can."""
        if len(attributes) > self.most:
            return f'A message may have at most {self.most} attributes, not {len(attributes)}'
        # PERF: characters have at most 4 bytes, so most need not be encoded to be counted.
        if 4 * len(''.join((*attributes, *attributes.values()))) > self.most_bytes:
            size = sum(len(name) + len(value.encode()) for name, value in attributes.items())
            if size > self.most_bytes:
                return (
                    'The names and values of the attributes of a message may have at most '
                    f'{self.most_bytes} bytes together, not {size}'
                )
        return _refusal_of(tuple(attributes))


@functools.lru_cache(maxsize=256)
def _refusal_of(names: tuple[str, ...]) -> str | None:
    """Why these cannot be names of attributes. PERF: clients use the same ones again and again."""
    for name in names:
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            return (
                f'The name of an attribute may have 1 to {MAX_NAME} letters, digits and characters '
                f'of "_.-", unlike {name[:MAX_NAME]!r}'
            )
    if len({name.lower() for name in names}) < len(names):
        return 'The names of two attributes of a message must not differ in case only'
    return None
