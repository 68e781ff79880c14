"""Keeps a client connected: a background task that drives the fallback."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

from zaqar_gevent.client.aio import io
from zaqar_gevent.client.aio.connection import Connection
from zaqar_gevent.client.aio.rest import Rest
from zaqar_gevent.client.errors import (
    APIError,
    ClientClosed,
    ConnectionLost,
    Unauthorized,
    ZaqarError,
)
from zaqar_gevent.client.fallback import HANDSHAKE_SECONDS, Fallback, State
from zaqar_gevent.client.handshake import Refused
from zaqar_gevent.client.lifetime import ForkGuard
from zaqar_gevent.client.links import Unreachable
from zaqar_gevent.client.outage import Outage

LOG = logging.getLogger(__name__)

# The connection's token has expired.
AUTHENTICATION_EXPIRED = 4003

Link = Connection | Rest
"""A way to a server: a WebSocket connection, or REST."""


class Connector:
    """Gives the link to use now.

    outage: told of each attempt at a connection.
    open_connection: opens a WebSocket within so many seconds; what it is given is called when the
        connection ends.
    refresh: called with the open connection every `refresh_seconds`.
    on_state: called with each new state, in the background.

    The background task keeps this alive, so this must not keep the client alive: what it calls are
    weak references to it and to its streams.
    """

    def __init__(
        self,
        fallback: Fallback,
        rest: Rest,
        outage: Outage,
        open_connection: Callable[..., Any],
        refresh: Callable[[Connection], Any],
        refresh_seconds: float,
        on_state: Callable[[State], None],
    ) -> None:
        self.fork_guard = ForkGuard()
        self._fallback = fallback
        self._rest = rest
        self._outage = outage
        self._open = open_connection
        self._refresh = refresh
        self._refresh_seconds = refresh_seconds
        self._on_state = on_state
        self._changed = io.Condition()
        self._jobs = io.JobQueue()
        self._told: State | None = None
        self._connection: Connection | None = None
        self._problem = ''
        self._denial: APIError | None = None
        self._listeners: set[weakref.WeakMethod[Callable[[], None]]] = set()
        self._task = io.Task(self._run, 'zaqar-connector')

    @property
    def state(self) -> State:
        return self._fallback.state

    @property
    def connection(self) -> Connection | None:
        """The WebSocket, if one is open."""
        return self._connection

    def start(self) -> None:
        """Begin to connect, where there is anything to connect."""
        if self._fallback.wait_seconds() is not None:
            self._task.start()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, a bound method, whenever the way to the server changes."""
        self._listeners.add(weakref.WeakMethod(listener))

    def forget(self, listener: Callable[[], None]) -> None:
        self._listeners.discard(weakref.WeakMethod(listener))

    def soon(self, job: Callable[[], Any] | None = None) -> None:
        """Have the background task do a job, or look again what there is to do.

        It may be called by any thread, also by the garbage collector.
        """
        self._jobs.put(job)

    async def link(self, seconds: float, *, is_urgent: bool = False) -> Link:
        """The link to use, waited for at most `seconds`; if it `is_urgent`, it is tried sooner.

        Raises ClientClosed, ClientForked, ConnectionLost if there is none in time, and Unauthorized
        if the server refuses the token.
        """
        self.fork_guard.check()
        # PERF: nearly always there is a connection.
        connection = self._connection
        if connection is not None and connection.is_open and self._fallback.state != 'closed':
            return connection
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                state = self._fallback.state
                if state == 'closed':
                    raise ClientClosed('The client is closed.')
                if self._connection is not None and self._connection.is_open:
                    return self._connection
                if state == 'polling':
                    return self._rest
                if self._denial is not None:
                    raise self._denial
                if is_urgent and self._fallback.wanted():
                    self.soon()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectionLost(f'{self._outage}. {self._problem}'.rstrip())
                await self._changed.wait(left)

    async def close(self) -> None:
        """Close the connection and end the task; a forked process has neither."""
        if not self.fork_guard.is_here:
            self._fallback.close()
            return
        with self._changed:
            self._fallback.close()
            connection = self._connection
            self._changed.notify_all()
        self.soon()
        self._tell()
        if connection is not None:
            await connection.close()
        await self._task.join(2 * HANDSHAKE_SECONDS)
        await self._rest.close()

    async def _run(self) -> None:
        while True:
            with self._changed:
                if self._fallback.state == 'closed':
                    return
                seconds = self._fallback.wait_seconds()
                connection = self._connection
            if seconds == 0:
                await self._attempt()
            elif seconds is not None:
                await self._jobs.do_one(seconds)
            elif not await self._jobs.do_one(self._refresh_seconds) and connection is not None:
                await self._keep(connection)

    async def _keep(self, connection: Connection) -> None:
        """Let the connection have a new token, if there is one."""
        try:
            await self._refresh(connection)
        except Unauthorized as error:
            LOG.warning('The token of the connection is not renewed: %s', error)
        except ZaqarError as error:
            LOG.info('The token of the connection is not renewed yet: %s', error)
        except Exception:
            LOG.exception('There is no new token for the connection')

    async def _attempt(self) -> None:
        self._fallback.attempting()
        connection: Connection | None = None
        failed: Callable[[], None] = self._fallback.lost
        problem: Exception | None = None
        try:
            connection = await self._open(HANDSHAKE_SECONDS, self._ended)
        except (Unreachable, Unauthorized) as error:
            problem, failed = error, self._fallback.unreachable
        except Refused as error:
            problem, failed = error, self._fallback.refused
        except TimeoutError as error:
            problem, failed = error, self._fallback.filtered
        except (ZaqarError, OSError) as error:
            problem = error
        except Exception as error:
            # It is tried again and again: one line each, and where it was only for who looks.
            is_traced = LOG.isEnabledFor(logging.DEBUG)
            LOG.warning('Opening a connection failed: %r', error, exc_info=is_traced)
            problem, failed = error, self._fallback.unreachable
        await self._use(connection, failed, problem)

    async def _use(
        self, connection: Connection | None, failed: Callable[[], None], problem: Exception | None
    ) -> None:
        """Use a new connection, or note why there is none."""
        with self._changed:
            self._denial = problem if isinstance(problem, Unauthorized) else None
            self._problem = str(problem or '')
            if connection is None:
                failed()
            elif not connection.is_open:
                self._fallback.lost(connection.reconnect_after_ms)
            elif self._fallback.state != 'closed':
                self._connection = connection
                self._fallback.opened()
                connection = None
            self._changed.notify_all()
            state, retry_seconds = self._fallback.state, self._fallback.wait_seconds()
        if problem is None:
            self._outage.over()
        elif state == 'connecting' and not isinstance(problem, Unauthorized):
            self._outage.failed(str(problem), retry_seconds or 0.0)
        if connection is not None:
            await connection.close()
        self._tell()

    def _ended(self, connection: Connection) -> None:
        """A connection has ended; those that never counted are seen to where they were opened."""
        with self._changed:
            if self._connection is not connection:
                return
            self._connection = None
            self._problem = connection.problem
            after = connection.reconnect_after_ms
            if connection.close_code == AUTHENTICATION_EXPIRED:
                after = after or 0
            self._fallback.lost(after)
            self._changed.notify_all()
        self.soon()
        LOG.info('The connection has ended: %s', connection.problem)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            state = self._fallback.state
            is_new, self._told = state != self._told, state
        for reference in tuple(self._listeners):
            listener = reference()
            if listener is None:
                self._listeners.discard(reference)
            else:
                listener()
        if is_new:
            try:
                self._on_state(state)
            except ClientClosed:
                # The client was dropped.
                pass
            except Exception:
                LOG.exception('What was to be told of the state failed')
