"""Reading a queue on, message by message, whatever the store."""

from __future__ import annotations

import collections
import time
from typing import Any, NamedTuple

from zaqar.storage import errors as storage_errors

from zaqar_gevent import markers
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.messages import Message, present_all
from zaqar_gevent.api.push import Source
from zaqar_gevent.push.clock_steps import ClockStepDetector

PAGE = 20
_REMEMBERED = 1000
_LOOKED_FOR = 100
_MANY = 1000
_MOST = 100_000
# Redis tells the age of a message in whole seconds.
_AGE_SECONDS = 2.0


class Entry(NamedTuple):
    """A message of a queue and the marker after which the next one is found."""

    marker: str
    message: Message


class Tail:
    """Reads the messages of a queue that follow a marker: base of the readers of each store."""

    def __init__(self, broker: Broker, source: Source) -> None:
        self._broker = broker
        self._source = source

    def end(self) -> str | None:
        """The marker of the newest message; None where there is none."""
        while True:
            try:
                newest = self._broker.messages.first(
                    self._source.name, self._source.project_id, sort=-1
                )
            except storage_errors.MessageDoesNotExist:
                # It was deleted a moment ago, and another one is the newest.
                continue
            except (storage_errors.DoesNotExist, storage_errors.QueueIsEmpty):
                return None
            return str(newest['id'])

    def after(self, marker: str | None) -> list[Entry]:
        """The next messages after `marker`, or from the start of the queue; none if none follow.

        Raises `MarkerNotGiven`.
        """
        return self._entries(self._read(marker))

    def verify(self, marker: str) -> None:
        """Raise `MarkerNotGiven` for one that the store cannot have given."""
        self._broker.check_marker(marker)
        self._read_page(marker, 1)

    def learn(self, other: Tail) -> None:
        """Know what another reader of the queue, who has come to the end, has read."""

    def _read(self, marker: str | None, limit: int = PAGE) -> list[dict[str, Any]]:
        """A page, as the store has it."""
        return self._read_page(marker, limit)[0]

    def _read_page(self, marker: str | None, limit: int) -> tuple[list[dict[str, Any]], Any]:
        """A page, and the marker of the next; None for an empty page, of which most have none."""
        try:
            results = self._list(marker, limit)
            found = list(next(results))
            return found, next(results, None) if found else None
        except storage_errors.DoesNotExist:
            return [], None

    def _list(self, marker: str | None, limit: int) -> Any:
        return self._broker.messages.list(
            self._source.name,
            self._source.project_id,
            marker=marker,
            limit=limit,
            echo=True,
            include_claimed=True,
        )

    def _entries(self, found: list[dict[str, Any]]) -> list[Entry]:
        if not found:
            return []
        ids = [str(message['id']) for message in found]
        messages = present_all(self._broker, found, self._source.project_id)
        return [Entry(*pair) for pair in zip(ids, messages, strict=True)]


class MarkedTail(Tail):
    """Reads the embedded store, whose markers keep their order even where the message is gone."""

    def end(self) -> str | None:
        return self._broker.messages.end(self._source.name, self._source.project_id)

    def after(self, marker: str | None) -> list[Entry]:
        found, following = self._read_page(marker, PAGE)
        positions = [str(message.get('position') or message['id']) for message in found]
        of_each = markers.of_positions(positions, str(following))
        entries = self._entries(found)
        return [entry._replace(marker=own) for entry, own in zip(entries, of_each, strict=True)]

    def _read_page(self, marker: str | None, limit: int) -> tuple[list[dict[str, Any]], Any]:
        """The same; the marker of an empty page is the given one, in full.

        Raises `MarkerNotGiven` for what cannot be one, after which a list is only empty.
        """
        results = self._list(marker, limit)
        found, following = list(next(results)), next(results)
        if marker and following is None:
            raise markers.MarkerNotGiven(marker)
        return found, following


class PagedTail(Tail):
    """Reads a store whose markers are not its messages' ids, as MongoDB: one message a page."""

    def end(self) -> str | None:
        marker = None
        while True:
            found, following = self._read_page(marker, _MANY)
            if not found:
                return marker
            marker = str(following)

    def after(self, marker: str | None) -> list[Entry]:
        found, following = self._read_page(marker, 1)
        return [entry._replace(marker=str(following)) for entry in self._entries(found)]


class ForgetfulTail(Tail):
    """Reads a store that finds nothing after a message that is gone, as upstream's Redis driver.

    There the list begins anew. What was read before is told by the ids of the last messages read
    and, further back, by when they were posted.
    """

    def __init__(self, broker: Broker, source: Source) -> None:
        super().__init__(broker, source)
        self._recent: collections.deque[str] = collections.deque(maxlen=_REMEMBERED)
        self._newest = 0.0
        self._clock_steps = ClockStepDetector()

    def end(self) -> str | None:
        """The same; of a queue whose newest message has just expired, found by reading it all."""
        marker = super().end()
        if marker is None:
            while page := self._page(marker):
                marker = str(page[-1]['id'])
        if marker is not None:
            self._remember(marker)
        return marker

    def after(self, marker: str | None) -> list[Entry]:
        # The embedded store in a pool knows the bare ids, too.
        marker = marker and markers.bare(marker)
        if self._keeps_place(marker):
            # PERF: such a store leaves nothing out of its pages, either. A consumer of the
            # messages meanwhile deletes them soon.
            found = self._read(marker)
        else:
            found = self._page(marker)
            if found and marker is not None and not self._exist([marker]):
                found = self._resume(marker, found)
        if found:
            self._recent.extend(str(message['id']) for message in found)
            self._newest = time.time() - found[-1]['age']
        elif marker is not None and marker not in self._recent:
            self._remember(marker)
        return self._entries(found)

    def learn(self, other: Tail) -> None:
        if isinstance(other, ForgetfulTail):
            self._recent.extend(one for one in other._recent if one not in self._recent)
            self._newest = max(self._newest, other._newest)

    def _read(self, marker: str | None, limit: int = PAGE) -> list[dict[str, Any]]:
        """The same. Redis finds nothing without a marker, and everything after an invalid one."""
        return super()._read('' if marker is None else marker, limit)

    def _remember(self, marker: str) -> None:
        """Nothing follows this message yet."""
        self._recent.append(marker)
        self._newest = time.time()

    def _page(self, marker: str | None) -> list[dict[str, Any]]:
        """The next messages. Redis leaves out expired ones, which may be a whole page."""
        for limit in (PAGE, _MANY, _MOST):
            found = self._read(marker, limit)
            if found or super().end() in (marker, None):
                break
        return found

    def _resume(self, marker: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages behind one that is gone; `found` is the start of the queue.

        Where the message was never seen here, it is all of the queue: better twice than never.
        """
        if marker not in self._recent:
            return found
        known = self._exist(list(self._recent)[-_LOOKED_FOR:])
        return self._skip(self._page(known[-1]) if known else found)

    def _keeps_place(self, marker: str | None) -> bool:
        """Whether the store can say so, and knows what follows this marker in any case."""
        if not self._broker.features.keeps_places:
            return False
        source = self._source
        return self._broker.messages.keeps_place(source.name, marker, source.project_id)

    def _exist(self, ids: list[str]) -> list[str]:
        """Those of the messages that are still there, in the order given."""
        found = self._broker.messages.bulk_get(self._source.name, ids, self._source.project_id)
        existing = {str(message['id']) for message in found}
        return [one for one in ids if one in existing]

    def _skip(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The unread part of a list that began too early; reads on if needed."""
        recent = set(self._recent)
        while found:
            fresh = [one for one in found if one['id'] not in recent and self._is_new(one)]
            if fresh:
                return fresh
            found = self._page(found[-1]['id'])
        return []

    def _is_new(self, message: dict[str, Any]) -> bool:
        if self._clock_steps.has_stepped():
            # Times of before and after cannot be compared: better twice than never.
            self._newest = 0.0
        return bool(time.time() - message['age'] >= self._newest - _AGE_SECONDS)


class PooledTail(ForgetfulTail):
    """Reads a queue that may be in any store: not all find everything after what is no marker."""

    def _read(self, marker: str | None, limit: int = PAGE) -> list[dict[str, Any]]:
        found = super()._read(marker, limit)
        if found or marker is not None:
            return found
        try:
            return Tail._read(self, None, limit)
        except Exception:
            # A store that cannot be asked so has nothing, and has just said so.
            return []
