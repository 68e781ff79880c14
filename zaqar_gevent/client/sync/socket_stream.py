"""One TCP or TLS connection that one thread reads while others write, each with a time limit.

The socket never blocks; whoever has to wait polls it. So it works the same in threads and, if
gevent has patched the standard library, in greenlets.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time

from zaqar_gevent.client.lifetime import ForkGuard

READ_BYTES = 64 * 1024
# Who waits without an end looks this often whether the connection has been cut.
_MAX_WAIT_SECONDS = 60.0


class SocketStream:
    """Bytes to and from a server.

    is_cut: whether it is over, from this side or the other.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._fork_guard = ForkGuard()
        self._socket = sock
        self._socket.setblocking(False)
        # OpenSSL does not let two threads use one connection at once.
        self._tls = threading.Lock() if isinstance(sock, ssl.SSLSocket) else None
        self.is_cut = False

    @classmethod
    def connect(
        cls, host: str, port: int, seconds: float, tls: ssl.SSLContext | None = None
    ) -> SocketStream:
        """Connect within `seconds`; raises OSError."""
        deadline = time.monotonic() + seconds
        sock = socket.create_connection((host, port), timeout=seconds)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                sock = tls.wrap_socket(sock, server_hostname=host)
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    def receive(
        self, seconds: float, *, until_writable: bool = False, is_early: bool = False
    ) -> bytes | None:
        """What has come: b'' at the end, None when nothing has within `seconds`.

        until_writable: do not wait any longer when something can be written. is_early: whether it
        is unlikely that anything has come already.
        """
        deadline = time.monotonic() + seconds
        if is_early and not self._has_decrypted():
            # PERF: it saves an attempt to read in vain.
            wanted = select.POLLIN | (select.POLLOUT if until_writable else 0)
            self._wait(wanted, deadline)
        while True:
            wait_for = select.POLLIN
            try:
                with self._tls or contextlib.nullcontext():
                    return self._socket.recv(READ_BYTES)
            except ssl.SSLWantWriteError:
                wait_for = select.POLLOUT
            except (BlockingIOError, ssl.SSLWantReadError, InterruptedError):
                pass
            except OSError:
                return b''
            if self.is_cut:
                return b''
            if until_writable:
                wait_for |= select.POLLOUT
            events = self._wait(wait_for, deadline)
            if not events or (until_writable and events & select.POLLOUT):
                return None

    def _has_decrypted(self) -> bool:
        """Whether there is something to read that polling would not find."""
        if self._tls is None or not isinstance(self._socket, ssl.SSLSocket):
            return False
        with self._tls:
            return not self.is_cut and self._socket.pending() > 0

    def send(self, data: bytes, seconds: float) -> None:
        """Write all of `data`.

        Raises OSError, TimeoutError among them; some of it may have been written then, so that the
        connection is of no more use.
        """
        deadline = time.monotonic() + seconds
        rest = memoryview(data)
        while rest:
            sent, wait_for = self._send(rest)
            rest = rest[sent:]
            if rest and not sent and not self._wait(wait_for, deadline):
                raise TimeoutError('The server does not take what it is sent.')

    def send_some(self, data: bytes) -> int:
        """Write as much of `data` as can be without waiting; how many bytes that was."""
        return self._send(memoryview(data))[0]

    def _send(self, data: memoryview) -> tuple[int, int]:
        if self.is_cut or not self._fork_guard.is_here:
            raise ConnectionResetError('The connection has ended.')
        try:
            with self._tls or contextlib.nullcontext():
                return self._socket.send(data), select.POLLOUT
        except ssl.SSLWantReadError:
            return 0, select.POLLIN
        except (BlockingIOError, ssl.SSLWantWriteError, InterruptedError):
            return 0, select.POLLOUT

    def _wait(self, events: int, deadline: float) -> int:
        """Which of the events has come before the deadline; 0 for none."""
        seconds = min(deadline - time.monotonic(), _MAX_WAIT_SECONDS)
        if seconds <= 0 or self.is_cut:
            return 0
        poll = select.poll()
        try:
            poll.register(self._socket, events)
            found = poll.poll(seconds * 1000)
        except (OSError, ValueError):
            # It was closed meanwhile, which the next attempt to use it will say.
            return events
        return found[0][1] if found else 0

    def cut(self) -> None:
        """End the connection at once; whoever waits for it is woken."""
        self.is_cut = True
        if not self._fork_guard.is_here:
            # The parent process uses it.
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give back what the connection takes, when nobody uses it any more."""
        self.cut()
        self._socket.close()
