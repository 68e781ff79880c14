"""Finds the filters that a message meets without looking at each of them.

A message has few attributes. By their values it is looked up which filters it could meet at all:
those that want just this value, or a prefix of it. Only these are compared. Equal filters are
compared once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from zaqar_gevent import filters
from zaqar_gevent.filters import Attributes, Exists, Filter, OneOf, Prefix

Member = TypeVar('Member')


FILTER = 'filter'
"""The option of a subscription that is its filter."""


def filter_in(options: Mapping[str, Any] | None) -> Filter | None:
    """The filter in the options of a subscription, if it has one.

    Options that were stored before filters meant anything may have something else there.
    """
    document = (options or {}).get(FILTER)
    try:
        return None if document is None else filters.parse(document)
    except filters.FilterError:
        return None


class Group(Generic[Member]):
    """Those who have the same filter, by their keys."""

    __slots__ = ('filter', 'members')

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self.members: dict[str, Member] = {}


class FilterIndex(Generic[Member]):
    """Members with a filter each, by keys of their own."""

    def __init__(self) -> None:
        self._groups: dict[Filter, Group[Member]] = {}
        self._of_members: dict[str, Group[Member]] = {}
        # By the name of an attribute and its whole value; by its name, and the length and text of
        # a prefix; and those that are to be compared with every message.
        self._by_value: dict[tuple[str, str], dict[Filter, Group[Member]]] = {}
        self._by_prefix: dict[str, dict[int, dict[str, dict[Filter, Group[Member]]]]] = {}
        self._others: dict[Filter, Group[Member]] = {}

    def __len__(self) -> int:
        return len(self._of_members)

    def add(self, key: str, member: Member, filter_: Filter) -> None:
        """Have a member, which replaces the one with the same key."""
        self.discard(key)
        group = self._groups.get(filter_)
        if group is None:
            group = self._groups[filter_] = Group(filter_)
            for place in self._places(filter_):
                place[filter_] = group
        group.members[key] = member
        self._of_members[key] = group

    def discard(self, key: str) -> None:
        """Have a member no more, if it is one."""
        group = self._of_members.pop(key, None)
        if group is None:
            return
        del group.members[key]
        if not group.members:
            del self._groups[group.filter]
            self._forget(group.filter)

    def members(self) -> Iterator[Member]:
        """All of them."""
        for group in self._groups.values():
            yield from group.members.values()

    def meeting(self, attributes: Attributes | None) -> Iterator[Group[Member]]:
        """The groups whose filter is met by a message with these attributes, each once."""
        for name, value in (attributes or {}).items():
            yield from self._met(self._by_value.get((name, value)), attributes)
            by_length = self._by_prefix.get(name)
            for length, by_text in by_length.items() if by_length else ():
                if length <= len(value):
                    yield from self._met(by_text.get(value[:length]), attributes)
        yield from self._met(self._others, attributes)

    def _met(
        self, groups: dict[Filter, Group[Member]] | None, attributes: Attributes | None
    ) -> Iterator[Group[Member]]:
        if groups:
            for filter_, group in groups.items():
                if filter_.meets(attributes):
                    yield group

    def _places(self, filter_: Filter) -> list[dict[Filter, Group[Member]]]:
        """Where a filter is looked for: under one of its conditions."""
        name, condition = _rarest(filter_)
        if isinstance(condition, OneOf):
            return [self._by_value.setdefault((name, text), {}) for text in condition.texts]
        text = _prefix_of(condition)
        if text is None:
            return [self._others]
        by_text = self._by_prefix.setdefault(name, {}).setdefault(len(text), {})
        return [by_text.setdefault(text, {})]

    def _forget(self, filter_: Filter) -> None:
        """Look for a filter no more."""
        for place in self._places(filter_):
            place.pop(filter_, None)
        name, condition = _rarest(filter_)
        if isinstance(condition, OneOf):
            for text in condition.texts:
                if not self._by_value[name, text]:
                    del self._by_value[name, text]
        elif (prefix := _prefix_of(condition)) is not None:
            by_length = self._by_prefix[name]
            by_text = by_length[len(prefix)]
            if not by_text[prefix]:
                del by_text[prefix]
            if not by_text:
                del by_length[len(prefix)]
            if not by_length:
                del self._by_prefix[name]


def _prefix_of(condition: Prefix | Exists) -> str | None:
    """The prefix of attributes that meet the condition; None if the attribute must be absent."""
    if isinstance(condition, Prefix):
        return condition.text
    return '' if condition.is_there else None


def _rarest(filter_: Filter) -> tuple[str, OneOf | Prefix | Exists]:
    """The name and the condition that the fewest messages can be expected to meet."""

    def commonness(named: tuple[str, OneOf | Prefix | Exists]) -> tuple[int, int]:
        match named[1]:
            case OneOf(texts=texts):
                return 0, len(texts)
            case Prefix(text=text):
                return 1, -len(text)
            case Exists(is_there=is_there):
                return (2, 0) if is_there else (3, 0)

    return min(filter_.conditions.items(), key=commonness)
