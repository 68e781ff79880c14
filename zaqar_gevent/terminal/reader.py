"""Notices when nobody reads the standard output any more, also while there is nothing to print."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def being_read() -> Iterator[None]:
    """Raise BrokenPipeError in the main thread when the reader of the standard output goes."""
    descriptor = sys.stdout.fileno()
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        yield
        return
    # NOTE: not SIGPIPE, which comes of sockets as well.
    signal.signal(signal.SIGUSR1, _raise)
    threading.Thread(target=_wait, args=(descriptor,), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _wait(descriptor: int) -> None:
    poll = select.poll()
    # Asked for nothing, it tells of errors only.
    poll.register(descriptor, 0)
    poll.poll()
    os.kill(os.getpid(), signal.SIGUSR1)


def _raise(number: int, frame: FrameType | None) -> None:
    raise BrokenPipeError
