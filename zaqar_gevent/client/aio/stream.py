"""The common part of subscriptions and consumers: a stream of messages."""

from __future__ import annotations

import abc
import time
from collections.abc import AsyncIterator
from typing import Self

from zaqar_gevent.client.aio.message import Message
from zaqar_gevent.client.aio.target import Target


class Stream(abc.ABC):
    """Iterates over messages as they come, until it is closed; closes itself as a context."""

    _is_closed = False
    # Whether nothing more is given out.
    _is_stopped = False
    _target: Target

    def __repr__(self) -> str:
        target, end = self._target, ', closed' if self._is_closed else ''
        kind = type(self).__name__
        return f'<{kind} of {target.kind} {target.name} of {target.requester.traits}{end}>'

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    async def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, waited for at most `timeout` seconds; None if there is none by then.

        None, too, once it is closed. Raises APIError if the server refuses, and ClientForked.
        """
        self._target.requester.connector.fork_guard.check()
        # PERF: most messages have come before they are asked for.
        message = None if self._is_stopped else self._take()
        if message is not None:
            return message
        deadline = time.monotonic() + (float('inf') if timeout is None else timeout)
        while not self._is_stopped:
            message = self._take()
            if message is not None:
                return message
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            await self._fetch(left)
        return None

    @abc.abstractmethod
    async def close(self) -> None:
        """End it; waiting callers are woken."""

    @abc.abstractmethod
    def _take(self) -> Message | None:
        """The next message that has come already."""

    @abc.abstractmethod
    async def _fetch(self, seconds: float) -> None:
        """See to it that messages come, and wait for one at most so long."""
