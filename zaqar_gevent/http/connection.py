"""One client's connection: its requests, one after the other, until either side has enough."""

from __future__ import annotations

import io
import math
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from gevent import socket as gevent_socket
from oslo_log import log

from zaqar_gevent.http.answer import Answer, refusal
from zaqar_gevent.http.body import NO_BODY, Body, ChunkedBody, SizedBody
from zaqar_gevent.http.head import Head, Refused, read_head
from zaqar_gevent.http.idle import Waiting
from zaqar_gevent.http.stream import Stream
from zaqar_gevent.request_ids import get_request_id, identify_request
from zaqar_gevent.sockets.batch import get_batch
from zaqar_gevent.sockets.hangup import has_hung_up, has_input
from zaqar_gevent.sockets.outbox import Outbox
from zaqar_gevent.sockets.received import NoRoom, Reservation
from zaqar_gevent.websocket.upgrade import TAKEOVER, Takeover

if TYPE_CHECKING:
    from zaqar_gevent.http.server import Server

LOG = log.getLogger(__name__)

CLIENT = 'zaqar_gevent.client'
"""Where WSGI's environment has the connection that a request came over."""

_READ_BYTES = 16 * 1024
# A longer head is not remembered.
_REMEMBERED_BYTES = 1024
# Longer answers do not wait for others to be written with.
_SOON_BYTES = 16 * 1024
_CONTINUE = b'HTTP/1.1 100 Continue\r\n\r\n'
# The rest of a body that the application did not read is skipped, up to so many bytes.
_DISCARDED_BYTES = 64 * 1024
# How long, and how much, a client may go on sending after the last answer. To close at once would
# reset the connection, and the client might never see the answer.
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 * 1024 * 1024
_NEVER = math.inf


class HTTPConnection:
    """Serves the requests that come over `sock`.

    When a client is too slow, reading stops: its request ends with 408.
    Running handlers continue.

    address: the client's; '' where it has none.
    deadline: when to stop reading, by `time.monotonic`.
    is_idle: whether no request has begun.
    """

    __slots__ = (
        *('_batch', '_environ', '_is_first', '_is_taken', '_latest', '_outbox', '_server'),
        *('_socket', '_stream', '_undo', '_unwritten', '_waiting', 'address', 'deadline'),
        'is_idle',
    )

    def __init__(self, server: Server, sock: socket.socket, environ: dict[str, Any]) -> None:
        self._server = server
        self._socket = sock
        self._environ = {**environ, CLIENT: self, TAKEOVER: self._take_over}
        self._latest: _Request | None = None
        self._stream = Stream(sock)
        self._outbox = Outbox(sock, 0, 0, server.application.unsent)
        # TLS has no way of writing that does not wait.
        self._batch = None if isinstance(sock, ssl.SSLSocket) else get_batch()
        self._unwritten: list[bytes] = []
        self._is_first = True
        self._is_taken = False
        self._undo: list[Callable[[], None]] = []
        # With the others of its address; from the second request on.
        self._waiting: Waiting | None = None
        self.address: str = environ['REMOTE_ADDR']
        self.deadline = _NEVER
        self.is_idle = False

    def serve(self) -> None:
        """Answer requests until the connection is over, or has been taken over."""
        try:
            while self._serve_request():
                pass
        except OSError as error:
            LOG.debug('A connection was lost: %s', error)
        finally:
            self.deadline = _NEVER
            # They refer to this connection; nothing is to wait for the garbage collector.
            self._environ = {}
            self._latest = None
            if self._waiting is not None:
                self._waiting.pop(self, None)
                self._server.idle.leave(self.address)
            if not self._is_taken:
                self._flush()
                self._outbox.close()
                self._stream.close()

    def expire(self) -> None:
        """Stop reading: the client has used up its time."""
        self._stream.is_late = True
        self.deadline = _NEVER
        self.stop_reading()

    def cut(self) -> None:
        """End the connection at once, even in the middle of a request or answer."""
        if not self._is_taken:
            self._outbox.cut()

    def stop_reading(self) -> None:
        """Let reads return the end of the stream; answers are still sent."""
        self._stream.is_over = True
        try:
            gevent_socket.socket.shutdown(self._socket, socket.SHUT_RD)
        except OSError:
            LOG.debug('A connection was lost before its time was up')

    def give_place(self) -> None:
        """End, since another connection needs the place, which this one does not use now."""
        if self._waiting is not None:
            self._waiting.pop(self, None)
        self.stop_reading()

    def has_input(self) -> bool:
        """Whether the client has sent something that was not read, or has hung up."""
        return has_input(self._socket)

    def is_gone(self) -> bool:
        """Whether the client has hung up, as far as can be told without waiting.

        Where this side has stopped reading, it cannot be told from the socket.
        """
        return self._outbox.is_lost or (not self._stream.is_over and has_hung_up(self._socket))

    def unless_answered(self, undo: Callable[[], None]) -> None:
        """Call `undo` where the answer to the present request cannot be written."""
        self._undo.append(undo)

    def _serve_request(self) -> bool:
        """Serve the next request; whether there may be another."""
        try:
            request = self._await_head()
        except Refused as refused:
            request_id = identify_request({})
            LOG.info('Refused a request of %s: %s', self.address, refused)
            self._write(refusal(refused, request_id))
            self._linger()
            return False
        if request is None:
            self._flush()
            self._await_written()
            return False
        stream, head = self._stream, request.head
        received, length, size = stream.received, head.length, head.size
        environ = request.environ.copy()
        if length is None or len(received) < size + length:
            stream.received = received[size:]
            return self._answer_slowly(head, environ)
        # PERF: all of the body has come with the head. It needs no reader.
        self.deadline = _NEVER
        if length:
            environ['wsgi.input'] = io.BytesIO(received[size : size + length])
        stream.received = received[size + length :]
        if self._answer(head, environ, NO_BODY):
            return True
        if stream.received and not self._is_taken:
            self._linger()
        return False

    def _answer_slowly(self, head: Head, environ: dict[str, Any]) -> bool:
        """Answer a request whose body is still to come; whether there may be another."""
        body = environ['wsgi.input'] = self._body_of(head)
        try:
            keeps = self._answer(head, environ, body)
        finally:
            if body.reservation is not None:
                body.reservation.give_back()
        if self._is_taken:
            return False
        if keeps and (body.is_whole or body.discard(_DISCARDED_BYTES)):
            return True
        if not body.is_whole or self._stream.received:
            self._linger()
        return False

    def _await_head(self) -> _Request | None:
        """The next request's head, which is still in what was received; None where there will be
        none. Raises `Refused`.
        """
        stream, latest = self._stream, self._latest
        if not stream.received and not self._await_request():
            return None
        # PERF: on a connection that is kept, clients often send the very same head again.
        if latest is not None and stream.received.startswith(latest.text):
            return latest
        return self._read_head()

    def _read_head(self) -> _Request | None:
        """Read up to the end of a head; None where the stream ends before. Raises `Refused`."""
        application, stream = self._server.application, self._stream
        self.deadline = time.monotonic() + application.timeouts.head
        while (head := read_head(stream.received, application.limits)) is None:
            if not stream.fill(_READ_BYTES):
                self._check_ending()
                return None
        environ = {
            **self._environ,
            **head.variables,
            'wsgi.input': NO_BODY,
            'wsgi.input_terminated': head.length is None,
        }
        request = _Request(stream.received[: head.size], head, environ)
        self._latest = request if head.size <= _REMEMBERED_BYTES else None
        return request

    def _await_request(self) -> bool:
        """Wait for the first bytes of a request; whether there are any."""
        server, waiting = self._server, self._waiting
        if server.is_draining:
            return False
        timeouts = server.application.timeouts
        if self._is_first:
            self._is_first = False
            self.deadline = time.monotonic() + timeouts.head
        else:
            self.deadline = time.monotonic() + timeouts.keepalive
            if waiting is None:
                waiting = self._waiting = server.idle.join(self.address)
            waiting[self] = None
            server.began_to_wait()
        self.is_idle = True
        try:
            received = self._stream.received = self._stream.read(_READ_BYTES)
        finally:
            self.is_idle = False
            if waiting is not None:
                waiting.pop(self, None)
        return bool(received)

    def _check_ending(self) -> None:
        """Raise `Refused` where the stream has ended within a head."""
        if not self._stream.received.strip(b'\r\n'):
            return
        if self._stream.is_late:
            raise Refused(408, 'request_timeout', 'Request timeout', 'Too slow.')
        raise Refused(400, 'bad_request', 'Bad request', 'The head of the request ends early.')

    def _body_of(self, head: Head) -> Body:
        """The reader of a body of which a part is still to come."""
        self.deadline = time.monotonic() + self._server.application.timeouts.body
        invite = self._invite if head.expects_continue else None
        if head.length is None:
            return ChunkedBody(self._stream, invite, self._take_room)
        return SizedBody(self._stream, head.length, invite, self._take_room)

    def _take_room(self, size: int) -> Reservation:
        """Room for a long body; the time for which it is waited for is not the client's."""
        began = time.monotonic()
        self.deadline, deadline = _NEVER, self.deadline
        received = self._server.application.received
        try:
            reservation = received.take(size, self.address, self.stop_reading)
        except NoRoom:
            raise received.no_room() from None
        self.deadline = deadline + time.monotonic() - began
        return reservation

    def _invite(self) -> None:
        self._write(_CONTINUE)

    def _answer(self, head: Head, environ: dict[str, Any], body: Body) -> bool:
        """Answer a request; whether the connection is kept.

        body: what is still to come of it.
        """
        began = time.time()
        answer = Answer()
        self._undo.clear()
        if self._unwritten and 'HTTP_UPGRADE' in environ:
            # The WebSocket will have an outbox of its own.
            self._flush()
        if self._outbox.size or self._outbox.is_lost:
            self._await_written()
        try:
            said = self._server.application(environ, answer.start)
            if self._is_taken:
                answer.status = '101 Switching Protocols'
                keeps = False
            else:
                closes = not self._keeps(head, body)
                self._unwritten += answer.compose(said, head, closes=closes)
                keeps = not answer.closes
                # A long answer that waits to be written is kept once, by the outbox.
                del said
                self._send(answer.size, is_last=not keeps)
        except ConnectionError:
            self._give_back()
            raise
        except Exception:
            LOG.exception('%s %s failed', environ['REQUEST_METHOD'], environ['PATH_INFO'])
            self._give_back()
            self._write(refusal(_FAILED, get_request_id()))
            return False
        self._server.note(environ, answer, began)
        return keeps

    def _keeps(self, head: Head, body: Body) -> bool:
        """Whether the connection is kept for another request, if the application agrees."""
        return (
            head.keeps
            and not self._server.is_draining
            and not self._stream.is_over
            and (body.is_whole or body.is_skippable(_DISCARDED_BYTES))
        )

    def _write(self, data: bytes) -> None:
        """Write `data`; returns when the client has taken it.

        Raises `ConnectionError` where it is gone.
        """
        self._unwritten.append(data)
        self._flush()
        self._await_written()

    def _send(self, size: int, *, is_last: bool) -> None:
        """Write an answer of `size` bytes, now or at the end of the loop's turn.

        One that must be undone where it cannot be written, is written now.
        """
        if self._batch is None or is_last or self._undo or size > _SOON_BYTES:
            self._flush()
            self._await_written()
        else:
            self._batch.add(self._flush)

    def _flush(self) -> None:
        pieces = self._unwritten
        if pieces:
            self._unwritten = []
            if len(pieces) == 1:
                self._outbox.write(pieces[0])
            else:
                self._outbox.put(pieces)

    def _await_written(self) -> None:
        """Return when the client has taken what was written; raise if it is gone."""
        if self._outbox.size:
            self._outbox.wait_until_empty()
        if self._outbox.is_lost:
            raise ConnectionError('the client is gone')

    def _give_back(self) -> None:
        """Undo the effects of a request whose answer was not sent."""
        undo, self._undo = self._undo, []
        for call in undo:
            call()

    def _linger(self) -> None:
        """Read on for a moment, so that the client gets the last answer before the end."""
        self.deadline = time.monotonic() + _LINGER_SECONDS
        gevent_socket.socket.shutdown(self._socket, socket.SHUT_WR)
        left = _LINGER_BYTES - len(self._stream.received)
        self._stream.received = b''
        while left > 0 and (data := self._stream.read(_DISCARDED_BYTES)):
            left -= len(data)

    def _take_over(self) -> Takeover:
        """Hand the connection to the caller; nothing here has to do with it any more.

        Where it can be, it is moved to a greenlet of its own, so that all that an HTTP request
        needs is freed. A TLS session cannot be moved.
        """
        self.deadline = _NEVER
        self._is_taken = True
        early = self._stream.received
        self._stream.close()
        sock = self._socket
        if isinstance(sock, ssl.SSLSocket):
            return Takeover(sock, early, _run_here)
        self._server.let_go(sock)
        return Takeover(sock, early, self._server.run)


class _Request(NamedTuple):
    """A request, without its body.

    text, head: its head, as it came and as it was read. environ: WSGI's, to be copied.
    """

    text: bytes
    head: Head
    environ: dict[str, Any]


_FAILED = Refused(
    *(500, 'internal_error', 'Internal error'), 'The server failed; its log says how.'
)


def _run_here(run: Callable[[], None]) -> None:
    run()
