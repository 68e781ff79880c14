"""Signals that end a subcommand, where what it is doing should be finished first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interrupted_later() -> Iterator[None]:
    """Finish the block when SIGINT or SIGTERM comes, and only then do what the signal is for.

    A second signal does not wait. For the main thread only.
    """
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    came: list[tuple[int, FrameType | None]] = []

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def wait(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        restore()

    for number in _SIGNALS:
        signal.signal(number, wait)
    try:
        yield
    finally:
        restore()
        for first, frame in came:
            handlers[first](first, frame)
