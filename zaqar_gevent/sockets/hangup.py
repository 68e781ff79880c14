"""Tells whether a client is still there, and whether it has sent anything."""

from __future__ import annotations

import functools
import select
import socket

from gevent import monkey

_poll = monkey.get_original('select', 'poll')


def _is_reported(events: int, sock: socket.socket) -> bool:
    """Whether any of the events is there; does not wait."""
    poller = _poll()
    try:
        poller.register(sock.fileno(), events)
    except (OSError, ValueError):
        return True
    return bool(poller.poll(0))


has_hung_up = functools.partial(_is_reported, select.POLLRDHUP)
"""Whether the peer has closed the connection, or will send nothing more; does not wait.

What it has sent before may still be unread.
"""

has_input = functools.partial(_is_reported, select.POLLIN | select.POLLRDHUP)
"""Whether the peer has sent something that was not read, or has closed the connection."""
