"""Turns of those who read long documents, so that others wait for one of them, not for all.

To read one may take the interpreter for tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Hashable, Iterable
from types import TracebackType
from typing import Any, NamedTuple

import gevent
import msgspec
from gevent import monkey
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from oslo_log import log

from zaqar_gevent import bodies, document_process, documents
from zaqar_gevent.bodies import Body, Encoding, UncheckedBody, ValueBody
from zaqar_gevent.document_process import Place, Task
from zaqar_gevent.greenlets import MOMENT
from zaqar_gevent.rotation import Rotation

LONG_BYTES = 32 * 1024
"""Documents of at least so many bytes are read one at a time."""

VERY_LONG_BYTES = bodies.VERY_LONG_BYTES
"""Documents of at least so many bytes are read by a process of its own, one at a time; the others
do not wait for them."""

READ_SECONDS = 30.0
"""How long that process may take for one document, before it is started anew."""

_READ_BYTES = 256 * 1024

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
    check_here = documents.check_msgpack if binary else documents.check_json
    # PERF: nearly all are short.
    if (
        len(document) < VERY_LONG_BYTES
        or _perform_elsewhere(Task.CHECK, document, max_depth, binary=binary) is None
    ):
        check_here(document, max_depth)


class CutPost(NamedTuple):
    """A very long post without the long bodies of its messages.

    document: has a placeholder for each of them. bodies: by the index of the message.
    """

    document: bytes
    bodies: dict[int, memoryview]


def cut_post(document: bytes, max_depth: int, *, binary: bool) -> CutPost | None:
    """A very long post that has been checked, without its long bodies: little is left to be read.

    None where it is to be read as it is, and has not been checked. Raises `documents.Malformed`.
    """
    found = _perform_elsewhere(Task.CHECK_POST, document, max_depth, binary=binary)
    if found is None:
        return None
    places = _decode_places(found)
    if not places:
        return None
    view = memoryview(document)
    cut_out = {place.index: view[place.start : place.start + place.size] for place in places}
    return CutPost(document_process.cut(document, places, binary=binary), cut_out)


_decode_places = msgspec.json.Decoder(list[Place]).decode


def find_id(document: bytes, *, binary: bool) -> int | str | None:
    """See `documents.find_id`."""
    found = _perform_elsewhere(Task.FIND_ID, document, 0, binary=binary)
    if found is None:
        return documents.find_id(document, binary=binary)
    return msgspec.json.decode(found, type=int | str | None)


def prepare(stored: Iterable[Body], encoding: Encoding, project: Hashable) -> None:
    """Make bodies ready for an answer in `encoding`, while others are served.

    Very long ones are checked, and what is in another encoding is converted, if it is long.
    Raises `documents.Malformed` for a body that is damaged.
    """
    waiting: list[Body] = []
    size = 0
    for body in stored:
        if type(body) is UncheckedBody:
            _check_stored(body, project)
        if body.encoding is encoding or isinstance(body, ValueBody):
            continue
        waiting.append(body)
        size += body.size
        if size >= LONG_BYTES:
            _convert(waiting, size, project)
            waiting, size = [], 0
    # PERF: what is left is converted where the answer is written.


def _check_stored(body: UncheckedBody, project: Hashable) -> None:
    # PERF: not a copy, which all others would wait for.
    data, binary = memoryview(body.data), body.encoding is Encoding.MSGPACK
    with exclusive(len(data), project):
        if _perform_elsewhere(Task.CHECK_STORED, data, 0, binary=binary) is None:
            document_process.perform(Task.CHECK_STORED, bytes(data), 0, binary=binary)


def _convert(some: list[Body], size: int, project: Hashable) -> None:
    with exclusive(size, project):
        for body in some:
            data, binary = memoryview(body.data), body.encoding is Encoding.MSGPACK
            converted = _perform_elsewhere(Task.CONVERT, data, 0, binary=binary)
            if converted is None:
                converted = document_process.perform(Task.CONVERT, bytes(data), 0, binary=binary)
            body.keep_converted(converted)


def _perform_elsewhere(
    task: Task, document: bytes | memoryview, max_depth: int, *, binary: bool
) -> bytes | bytearray | None:
    """The result of a task with a very long document; None where it is to be done here.

    Raises `documents.Malformed`.
    """
    if len(document) < VERY_LONG_BYTES or not monkey.is_module_patched('socket'):
        return None
    try:
        return _process.perform(task, document, max_depth, binary=binary)
    except (OSError, gevent.Timeout) as error:
        LOG.warning('A long document is read in place: %s', error)
        return None


class _Process:
    """The process of `zaqar_gevent.document_process`, started when it is first needed."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._pid = 0
        # Of the process that has started it: it is not for one that was forked.
        self._owner = 0
        self._lock = BoundedSemaphore()

    def perform(
        self, task: Task, document: bytes | memoryview, max_depth: int, *, binary: bool
    ) -> bytearray:
        """The result of a task; raises `documents.Malformed` where the document is not accepted.

        Raises `OSError` or `gevent.Timeout` where the process cannot tell.
        """
        with self._lock:
            connection = self._connect()
            try:
                with gevent.Timeout(READ_SECONDS):
                    head = document_process.REQUEST.pack(len(document), max_depth, task, binary)
                    connection.sendall(head)
                    connection.sendall(document)
                    is_accepted, size = document_process.ANSWER.unpack(
                        _receive(connection, document_process.ANSWER.size)
                    )
                    result = _receive(connection, size)
            except BaseException:
                # What it says next would be about this document.
                self._drop()
                raise
        if not is_accepted:
            raise documents.Malformed(result.decode())
        return result

    def _connect(self) -> socket.socket:
        if self._socket is not None and self._owner == os.getpid():
            return self._socket
        own, its = socket.socketpair()
        try:
            with its:
                self._pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, '-m', document_process.__name__],
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


def _receive(connection: socket.socket, size: int) -> bytearray:
    received = bytearray()
    while len(received) < size:
        data = connection.recv(min(size - len(received), _READ_BYTES))
        if not data:
            raise ConnectionError('the process that reads them has ended')
        received += data
        if len(data) == _READ_BYTES:
            # There may always be more: others have their turn.
            gevent.sleep(MOMENT)
    return received


_process = _Process()
