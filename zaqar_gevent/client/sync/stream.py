# Written by `tox -e genblocking` from client/aio/stream.py: change that one.
# fmt: off
"""The common part of subscriptions and consumers: a stream of messages."""

from __future__ import annotations

import abc
import time
from collections.abc import Iterator
from typing import Self

from zaqar_gevent.client.sync.message import Message
from zaqar_gevent.client.sync.target import Target


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        message = self.receive()
        if message is None:
            raise StopIteration
        return message

    def receive(self, timeout: float | None = None) -> Message | None:
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
            self._fetch(left)
        return None

    @abc.abstractmethod
    def close(self) -> None:
        """End it; waiting callers are woken."""

    @abc.abstractmethod
    def _take(self) -> Message | None:
        """The next message that has come already."""

    @abc.abstractmethod
    def _fetch(self, seconds: float) -> None:
        """See to it that messages come, and wait for one at most so long."""
