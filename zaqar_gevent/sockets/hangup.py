"""Whether a client is still there."""

from __future__ import annotations

import select
import socket

from gevent import monkey

_poll = monkey.get_original('select', 'poll')


def has_hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed the connection, or will send nothing more; does not wait.

    What it has sent before may still be unread.
    """
    poller = _poll()
    try:
        poller.register(sock.fileno(), select.POLLRDHUP)
    except (OSError, ValueError):
        return True
    return bool(poller.poll(0))
