"""Attributes: texts by name that travel with a message beside its body."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from zaqar_gevent.api import errors

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

    def check(self, attributes: Attributes, place: str) -> None:
        """Raise `errors.BadRequest` for attributes that a message cannot have.

        place: where they are in the request, such as `$.messages[0].attributes`.
        """
        if len(attributes) > self.most:
            raise errors.BadRequest(
                f'A message may have at most {self.most} attributes, not {len(attributes)} - at '
                f'`{place}`'
            )
        # PERF: characters have at most 4 bytes, so most need not be encoded to be counted.
        if 4 * (sum(map(len, attributes)) + sum(map(len, attributes.values()))) > self.most_bytes:
            self._check_size(attributes, place)
        refusal = _refusal_of(tuple(attributes))
        if refusal is not None:
            raise errors.BadRequest(f'{refusal} - at `{place}`')

    def _check_size(self, attributes: Attributes, place: str) -> None:
        size = sum(len(name) + len(value.encode()) for name, value in attributes.items())
        if size > self.most_bytes:
            raise errors.BadRequest(
                'The names and values of the attributes of a message may have at most '
                f'{self.most_bytes} bytes together, not {size} - at `{place}`'
            )


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
