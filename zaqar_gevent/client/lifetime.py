"""Clients that are dropped without having been closed, and clients in forked processes."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from zaqar_gevent.client.errors import ClientClosed, ClientForked

Result = TypeVar('Result')


class ForkGuard:
    """The process in which a client was made, the only one that can use it.

    Threads do not survive a fork, and two processes must not use one connection.
    """

    __slots__ = ('_pid',)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise `ClientForked` in any other process; to be called before any lock is taken."""
        if not self.is_here:
            raise ClientForked(
                'The client was made before this process was forked; make a new one here.'
            )


def weak_method(method: Callable[..., Result]) -> Callable[..., Result]:
    """The same bound method, without keeping its object alive.

    So a background task does not keep alive what it works for. Raises `ClientClosed` once the
    object is gone.
    """
    reference: weakref.WeakMethod[Callable[..., Result]] = weakref.WeakMethod(method)

    def call(*args: Any, **kwargs: Any) -> Result:
        alive = reference()
        if alive is None:
            raise ClientClosed('The client was dropped.')
        return alive(*args, **kwargs)

    return call
