"""Turns of those who read long documents, so that others wait for one of them, not for all.

To read one may take the interpreter for tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Hashable
from types import TracebackType
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from oslo_log import log

from zaqar_gevent import document_checker, documents
from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.rotation import Rotation

LONG_BYTES = 32 * 1024
"""Documents of at least so many bytes are read one at a time."""

VERY_LONG_BYTES = 512 * 1024
"""Documents of at least so many bytes are checked by a process of its own, one at a time; the
others do not wait for them."""

CHECK_SECONDS = 30.0
"""How long that process may take for one document, before it is started anew."""

LOG = log.getLogger(__name__)

_local = monkey.get_original('threading', 'local')


class _FairLock:
    """The turns in one hub: after each, the sockets and all that is ready to run come first."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self._is_taken = False
        # By project.
        self._waiting: Rotation[Hashable, Event] = Rotation()
        self._end = hub.loop.timer(MOMENT)

    def take(self, project: Hashable) -> None:
        """Wait for a turn; the projects that wait take them in rotation."""
        if not self._is_taken:
            self._is_taken = True
            return
        wait = Event()
        self._waiting.add(project, wait)
        try:
            wait.wait()
        except BaseException:
            if wait.is_set():
                self.give_up()
            else:
                self._waiting.remove(project, wait)
            raise

    def give_up(self) -> None:
        """The next one has its turn when the loop has looked at the sockets."""
        self._end.start(self._pass_on)

    def _pass_on(self) -> None:
        found = self._waiting.take()
        if found is None:
            self._is_taken = False
            return
        _, wait = found
        wait.set()


_locks = _local()


class _Held:
    """Held while a long document is read."""

    __slots__ = ('_lock', '_project')

    def __init__(self, lock: _FairLock, project: Hashable) -> None:
        self._lock = lock
        self._project = project

    def __enter__(self) -> None:
        self._lock.take(self._project)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.give_up()


_AT_ONCE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def exclusive(size: int, project: Hashable) -> contextlib.AbstractContextManager[None]:
    """A lock to hold while a document of `size` bytes is read; short documents do not wait.

    project: who takes turns with others; the connection where the project is not known.
    """
    if size < LONG_BYTES:
        return _AT_ONCE
    hub = gevent.get_hub()
    name = 'long' if size < VERY_LONG_BYTES else 'very_long'
    lock: _FairLock | None = getattr(_locks, name, None)
    if lock is None or lock.hub is not hub:
        lock = _FairLock(hub)
        setattr(_locks, name, lock)
    return _Held(lock, project)


def check(document: bytes, max_depth: int, *, binary: bool) -> None:
    """Raise `documents.Malformed` for what is no document in JSON, or in MsgPack where `binary`.

    A very long one is checked elsewhere, if that can be done, while others are served.
    """
    if len(document) >= VERY_LONG_BYTES and monkey.is_module_patched('socket'):
        try:
            reason = _checker.check(document, max_depth, binary=binary)
        except (OSError, gevent.Timeout) as error:
            LOG.warning('A long document is checked in place: %s', error)
        else:
            if reason:
                raise documents.Malformed(reason)
            return
    (documents.check_msgpack if binary else documents.check_json)(document, max_depth)


class _Checker:
    """The process of `zaqar_gevent.document_checker`, started when it is first needed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._pid = 0
        # Of the process that has started it: it is not for one that was forked.
        self._owner = 0
        self._lock = BoundedSemaphore()

    def check(self, document: bytes, max_depth: int, *, binary: bool) -> str:
        """Why a document is not accepted; nothing for one that is.

        Raises `OSError` or `gevent.Timeout` where that cannot be found out.
        """
        with self._lock:
            connection = self._connect()
            try:
                with gevent.Timeout(CHECK_SECONDS):
                    head = document_checker.REQUEST.pack(len(document), max_depth, binary)
                    connection.sendall(head)
                    connection.sendall(document)
                    [size] = document_checker.ANSWER.unpack(
                        _receive(connection, document_checker.ANSWER.size)
                    )
                    return _receive(connection, size).decode()
            except BaseException:
                # What it says next would be about this document.
                self._drop()
                raise

    def _connect(self) -> socket.socket:
        if self._socket is not None and self._owner == os.getpid():
            return self._socket
        own, its = socket.socketpair()
        try:
            with its:
                self._pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, '-m', document_checker.__name__],
                    {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
                    file_actions=[(os.POSIX_SPAWN_DUP2, its.fileno(), 0)],
                )
        except BaseException:
            own.close()
            raise
        self._socket, self._owner = own, os.getpid()
        return own

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b''
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            raise ConnectionError('the process that checks them has ended')
        received += data
    return received


_checker = _Checker()
