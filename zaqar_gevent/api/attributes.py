"""Attributes: texts by name that travel with a message beside its body."""

from __future__ import annotations

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
        size = sum(len(name) + len(value.encode()) for name, value in attributes.items())
        if size > self.most_bytes:
            raise errors.BadRequest(
                'The names and values of the attributes of a message may have at most '
                f'{self.most_bytes} bytes together, not {size} - at `{place}`'
            )
        for name in attributes:
            if len(name) > MAX_NAME or not _NAME.fullmatch(name):
                raise errors.BadRequest(
                    f'The name of an attribute may have 1 to {MAX_NAME} letters, digits and '
                    f'characters of "_.-", unlike {name[:MAX_NAME]!r} - at `{place}`'
                )
        if len({name.lower() for name in attributes}) < len(attributes):
            raise errors.BadRequest(
                'The names of two attributes of a message must not differ in case only - at '
                f'`{place}`'
            )
