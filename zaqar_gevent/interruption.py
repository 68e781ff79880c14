"""Ctrl-C while a command starts: it ends at once, without a traceback.

Until its modules are loaded, a command has nothing to finish. This module itself loads nothing.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT


def end_at_once() -> None:
    """Have SIGINT end the process with status 130, unless SIGINT is ignored or handled already."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_it() -> None:
    """Have SIGINT raise KeyboardInterrupt again, where it ended the process."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    # NOTE: an exception would not do: a library or a greenlet that is being loaded may print it.
    os._exit(INTERRUPTED)
