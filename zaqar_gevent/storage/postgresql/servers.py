"""The databases that a process speaks to, each by a few connections a hub."""

from __future__ import annotations

import _socket
from typing import Any

import gevent.socket
import msgspec
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from zaqar_gevent.storage.core.handles import Handle, Registry
from zaqar_gevent.storage.errors import ScanTooLong, StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.postgresql import posting, schema
from zaqar_gevent.storage.postgresql.addresses import Address
from zaqar_gevent.storage.postgresql.calls import (
    Habits,
    HubLink,
    Kind,
    PendingCall,
    ThreadLink,
    TooLong,
    wait_in_greenlet,
)
from zaqar_gevent.storage.postgresql.kinds import POSTS, READS, SCANS, STEPS, WRITES
from zaqar_gevent.storage.postgresql.upkeep import Upkeep, use_functions
from zaqar_gevent.storage.postgresql.wire import Statement, wait_in_thread

_local = monkey.get_original('threading', 'local')

_LIMIT = Statement('limit', "SELECT set_config('statement_timeout', $1, true)")

Facts = Any
_decode = msgspec.json.Decoder().decode


class PostgresServer:
    """A database, as the drivers of this process that name it use it.

    scan_seconds: how long a read of the kind `SCANS` may take.
    """

    def __init__(
        self, address: Address, timeout: float, *, may_prepare: bool, most_ahead: float
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._most_ahead = most_ahead
        self._is_checked = False
        self.scan_seconds = 30.0
        self.upkeep = Upkeep(self)
        self._may_prepare = may_prepare
        self.start()

    def call(self, kind: Kind, name: str, *arguments: Any, **more: Any) -> tuple[Facts, Any]:
        """The facts and the document of the only row that a function returns; None for none.

        more: of `schema.function`. Raises `StoreUnavailable`.
        """
        rows = self.rows(kind, name, *arguments, **more)
        return rows[0] if rows else (None, None)

    def rows(self, kind: Kind, name: str, *arguments: Any, **more: Any) -> list[tuple[Facts, Any]]:
        """The facts and the document of each row that a function returns."""
        statement = schema.function(self.address.schema, name, len(arguments), **more)
        rows = self._ask(kind, statement, arguments)
        return [(facts and _decode(facts), document) for facts, document in rows]

    def query(self, kind: Kind, statement: Statement, *arguments: Any) -> list[Any]:
        """The first column, which is JSON, of each row that a statement returns."""
        return [row[0] and _decode(row[0]) for row in self._ask(kind, statement, arguments)]

    def post(self, post: posting.Post) -> posting.Outcome:
        """Store messages; raises `StoreUnavailable`."""
        link = self._link(POSTS)
        statement = self._statements[post.post_id is not None]
        call = posting.PostCall(statement, post, link.new_until())
        self._wait(link, POSTS, call)
        outcome = call.outcome
        if outcome is not None:
            self._habits.saw(outcome)
        return outcome

    def saw(self, position: int) -> None:
        """Note that the database has given a position."""
        self._habits.saw(position)

    def look(self) -> None:
        """Compare the clocks, and see whether the database has lost its end.

        Raises `StoreUnavailable`.
        """
        statement = Statement('look', schema.look(self.address.schema))
        if self._habits.look(lambda: self.query(READS, statement)[0]):
            self.call(WRITES, 'begin_epoch')

    @property
    def is_off(self) -> bool:
        """Whether its clock differs too much from ours."""
        return self._habits.clock.is_off

    def check(self, *, may_migrate: bool) -> None:
        """Let the database be that of this version, and begin an epoch.

        Raises `StoreUnavailable`, `UnsuitableStore`.
        """
        if self._is_checked:
            return
        if get_hub_if_exists() is None:
            wait, resolve = wait_in_thread, _socket.getaddrinfo
        else:
            wait, resolve = wait_in_greenlet, gevent.socket.getaddrinfo
        schema.ensure(self.address, wait, resolve, may_migrate=may_migrate)
        use_functions(self)
        if self.is_off:
            raise UnsuitableStore(
                self.address.store,
                f'{self._habits.clock.explanation} The option max_clock_difference says how much '
                'is allowed.',
            )
        self.call(WRITES, 'begin_epoch')
        self._is_checked = True

    def start(self) -> None:
        """Have no connections yet."""
        self._habits = Habits(
            self.address,
            self._timeout,
            may_prepare=self._may_prepare,
            most_ahead=self._most_ahead,
        )
        self._thread_link = ThreadLink(self._habits)
        self._links: list[HubLink] = []
        self._own = _local()
        self._statements = [
            schema.function(self.address.schema, 'post', 6, is_repeatable=has_id)
            for has_id in (False, True)
        ]

    def close(self, *, wait: bool) -> None:
        """Close all connections; all calls that wait fail."""
        self.upkeep.stop()
        self._thread_link.close()
        for link in self._links:
            link.close()

    def after_fork(self) -> None:
        """In a forked child: leave the connections to the parent, and begin anew."""
        self.upkeep = self.upkeep.after_fork()
        self._thread_link.forget()
        for link in self._links:
            link.forget()
        self.start()

    def _ask(self, kind: Kind, statement: Statement, arguments: tuple[Any, ...]) -> Any:
        link = self._link(kind)
        call = PendingCall(statement, arguments, link.new_until())
        call.is_alone = kind is STEPS or kind is SCANS
        if kind is SCANS:
            milliseconds = max(1, int(self.scan_seconds * 1000))
            call.before = PendingCall(_LIMIT, (str(milliseconds),), call.until)
        self._wait(link, kind, call)
        return call.rows

    def _wait(self, link: HubLink | ThreadLink, kind: Kind, call: Any) -> None:
        try:
            if isinstance(link, ThreadLink):
                link.ask(call, kind)
            else:
                link.ask(call)
        except TooLong:
            if kind is SCANS:
                raise ScanTooLong(self.scan_seconds) from None
            raise StoreUnavailable(self.address.store, 'it has broken off a statement') from None

    def _link(self, kind: Kind) -> HubLink | ThreadLink:
        hub = get_hub_if_exists()
        if hub is None:
            return self._thread_link
        links: dict[str, HubLink] = self._own.__dict__
        link = links.get(kind.name)
        if link is None or link.hub is not hub:
            link = links[kind.name] = HubLink(self._habits, kind, hub)
            self._links.append(link)
            self.upkeep.begin(hub)
        return link


_registry: Registry[Address, PostgresServer] = Registry()


def open_server(
    address: Address, timeout: float, *, may_prepare: bool, most_ahead: float
) -> Handle[PostgresServer]:
    """A handle of the database at an address.

    timeout: seconds that an answer is waited for. may_prepare: whether statements are prepared.
    most_ahead: by how many seconds the clocks may differ; 0 allows any difference. The first handle
    decides.
    """

    def make() -> PostgresServer:
        return PostgresServer(address, timeout, may_prepare=may_prepare, most_ahead=most_ahead)

    return _registry.open(address, make)
