"""Calls of many greenlets to one function for one queue, sent as one call.

PERF: most of what a call costs PostgreSQL is to start its statements. Many workers of one queue
claim, and delete what they have done, at the same time.

All calls of a batch are waited for by greenlets of their own, which have not been answered. So none
comes before another as far as anybody can tell, and they may be sent in another order. The calls
that are merged stay in theirs: whoever asked first has the first messages.

A call that fails fails its transaction. Then the link sends each call by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from zaqar_gevent.storage.postgresql.calls import PendingCall
from zaqar_gevent.storage.postgresql.wire import Merge, Row

MOST_CALLS = 16
"""Calls that are sent as one, at most. The answers of all of them are in memory together."""

MOST_BYTES = 8192
"""Bytes of an array that is sent, unless a single call has more: its elements are searched."""

_TRUE = b't'


class Merged:
    """Some calls of one statement as they are sent.

    The function returns a row for each call, in their order. The last row is that of all further
    calls as well.
    """

    __slots__ = ('_calls', '_merge', '_size', 'failure', 'formats', 'rows', 'statement')

    def __init__(self, call: PendingCall, merge: Merge) -> None:
        self._calls = [call]
        self._merge = merge
        self._size = self._size_of(call)
        self.statement = call.statement
        self.formats = call.formats
        self.rows: list[Row] = []
        self.failure: tuple[str, str] | None = None

    def add(self, call: PendingCall) -> bool:
        """Send another call with these, which has the same key; whether that is possible."""
        size = self._size + self._size_of(call)
        if len(self._calls) == MOST_CALLS or size > MOST_BYTES:
            return False
        distinct = self._merge.distinct
        if distinct is not None:
            value = call.values[distinct]
            if any(one.values[distinct] == value for one in self._calls):
                return False
        self._size = size
        self._calls.append(call)
        return True

    @property
    def values(self) -> list[bytes | None]:
        """The parameters of one call for all."""
        if len(self._calls) == 1:
            return self._calls[0].values
        merge = self._merge
        values = [*self._calls[-1].values]
        for index in merge.joined:
            arrays = [one.values[index] for one in self._calls]
            if arrays[0] is not None:
                values[index] = b'{%b}' % b','.join(_elements(one) for one in arrays)
        if merge.least is not None:
            least = merge.least
            values[least] = min((one.values[least] or b'' for one in self._calls), key=int)
        return values

    def distribute(self) -> None:
        """Give each call its answer."""
        for place, call in enumerate(self._calls):
            call.rows = self.rows[place : place + 1] or self.rows[-1:]

    def _size_of(self, call: PendingCall) -> int:
        return max(len(call.values[index] or b'') for index in self._merge.joined)


def merge(calls: Sequence[PendingCall]) -> Sequence[Any]:
    """What is sent of some calls."""
    if len(calls) == 1:
        # PERF: what one caller at a time costs.
        return calls
    sent: list[Any] = []
    open_: dict[Hashable, Merged] = {}
    for call in calls:
        merge = call.statement.merge
        if merge is None or _is_repeated(call):
            sent.append(call)
            continue
        key = _key(call, merge)
        merged = open_.get(key)
        if merged is None or not merged.add(call):
            merged = open_[key] = Merged(call, merge)
            sent.append(merged)
    return sent


def _is_repeated(call: PendingCall) -> bool:
    """Whether it may have been done already."""
    again = call.statement.again
    return again is not None and call.values[again] == _TRUE


def _key(call: PendingCall, merge: Merge) -> Hashable:
    """What calls that are sent as one have in common."""
    values: list[Any] = [*call.values]
    for index in merge.joined:
        values[index] = values[index] is None
    values[merge.latest] = None
    if merge.least is not None:
        values[merge.least] = None
    return call.statement.name, *values


def _elements(array: bytes | None) -> bytes:
    return (array or b'{}')[1:-1]
