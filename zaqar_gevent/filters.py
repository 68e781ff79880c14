"""Filters: which messages a subscription is for, by their attributes.

A filter has a condition for each of some attributes, and is met by messages that meet all of them::

    {"type": ["order", "refund"], "region": {"prefix": "eu-"}, "tenant": {"exists": true}}

A condition is a text, which the attribute must equal; a list of texts, one of which it must equal;
`{"prefix": TEXT}`, with which it must begin; `{"exists": true}` if it must be there, with any text;
or `{"exists": false}` if it must not. Texts are compared as they are, upper and lower case apart.

The clients have a copy of this module, for what they poll: it imports nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_CONDITIONS = 16
"""Attributes that a filter may name."""

MAX_TEXTS = 100
"""Texts of which an attribute may equal one."""

MAX_TEXT = 8192
"""Characters of a text; no attribute has more."""

Attributes = Mapping[str, str]

_MAX_NAME = 128
_NAME = re.compile(r'[A-Za-z0-9_.-]+')
_FORMS = 'a text, a list of texts, {"prefix": TEXT}, {"exists": true} or {"exists": false}'


class FilterError(ValueError):
    """A document is no filter; the text says where, beginning with the place that was given."""


class OneOf:
    """The attribute equals one of some texts."""

    __slots__ = ('texts',)

    def __init__(self, texts: frozenset[str]) -> None:
        self.texts = texts

    @property
    def key(self) -> tuple[str, Any]:
        """A key that equal conditions share."""
        return 'one of', self.texts

    def meets(self, value: str | None) -> bool:
        """Whether the value of an attribute meets the condition; None if it is absent."""
        return value in self.texts


class Prefix:
    """The attribute begins with a text."""

    __slots__ = ('text',)

    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def key(self) -> tuple[str, Any]:
        return 'prefix', self.text

    def meets(self, value: str | None) -> bool:
        return value is not None and value.startswith(self.text)


class Exists:
    """The attribute is there, or is not."""

    __slots__ = ('is_there',)

    def __init__(self, is_there: bool) -> None:
        self.is_there = is_there

    @property
    def key(self) -> tuple[str, Any]:
        return 'exists', self.is_there

    def meets(self, value: str | None) -> bool:
        return (value is not None) is self.is_there


Condition = OneOf | Prefix | Exists


class Filter:
    """Conditions by the names of attributes; equal filters are met by the same messages.

    document: what the client gave.
    """

    __slots__ = ('_key', 'conditions', 'document')

    def __init__(self, document: Mapping[str, Any], conditions: Mapping[str, Condition]) -> None:
        self.document = document
        self.conditions = conditions
        self._key = tuple((name, one.key) for name, one in sorted(conditions.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def meets(self, attributes: Attributes | None) -> bool:
        """Whether a message with these attributes meets all conditions."""
        found = attributes or {}
        return all(one.meets(found.get(name)) for name, one in self.conditions.items())


def parse(document: Any, place: str = '$.options.filter') -> Filter:
    """The filter that a document stands for; raises FilterError, which says what is wrong where.

    place: where the document is.
    """
    if not isinstance(document, Mapping):
        raise FilterError(
            f'A filter must be an object such as {{"type": "order"}}, not {_told(document)} - at '
            f'`{place}`'
        )
    if not 1 <= len(document) <= MAX_CONDITIONS:
        raise FilterError(
            f'A filter must name 1 to {MAX_CONDITIONS} attributes, not {len(document)} - at '
            f'`{place}`'
        )
    return Filter(document, dict(_conditions(document, place)))


def _conditions(document: Mapping[str, Any], place: str) -> Iterator[tuple[str, Condition]]:
    for name, wanted in document.items():
        if not isinstance(name, str) or len(name) > _MAX_NAME or not _NAME.fullmatch(name):
            raise FilterError(
                f'The name of an attribute may have 1 to {_MAX_NAME} letters, digits and '
                f'characters of "_.-", unlike {str(name)[:_MAX_NAME]!r} - at `{place}`'
            )
        yield name, _condition(wanted, f'{place}.{name}')


def _condition(wanted: Any, place: str) -> Condition:
    if isinstance(wanted, str):
        return OneOf(frozenset([_text(wanted, place)]))
    if isinstance(wanted, list | tuple):
        if not 1 <= len(wanted) <= MAX_TEXTS:
            raise FilterError(
                f'A list must have 1 to {MAX_TEXTS} texts, not {len(wanted)} - at `{place}`'
            )
        texts = (_text(text, f'{place}[{index}]') for index, text in enumerate(wanted))
        return OneOf(frozenset(texts))
    if isinstance(wanted, Mapping) and len(wanted) == 1:
        [(kind, given)] = wanted.items()
        if kind == 'prefix':
            return Prefix(_text(given, f'{place}.prefix'))
        if kind == 'exists':
            if not isinstance(given, bool):
                raise FilterError(
                    f'This must be true or false, not {_told(given)} - at `{place}.exists`'
                )
            return Exists(given)
    raise FilterError(f'A condition must be {_FORMS} - at `{place}`')


def _text(given: Any, place: str) -> str:
    if not isinstance(given, str):
        raise FilterError(f'This must be a text, not {_told(given)} - at `{place}`')
    if len(given) > MAX_TEXT:
        raise FilterError(
            f'A text may have at most {MAX_TEXT} characters, not {len(given)} - at `{place}`'
        )
    return given


def _told(given: Any) -> str:
    """The name of a value's JSON type."""
    if given is None:
        return 'null'
    if isinstance(given, bool):
        return 'true' if given else 'false'
    if isinstance(given, int | float):
        return 'a number'
    if isinstance(given, Mapping):
        return 'an object'
    return 'a text' if isinstance(given, str) else 'a list'
