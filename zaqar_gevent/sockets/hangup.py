"""Tells whether a client is still there, and whether it has sent anything."""

from __future__ import annotations

import select
import socket

from gevent import monkey

_poll = monkey.get_original('select', 'poll')


def has_hung_up(sock: socket.socket) -> bool:
    """Whether the peer has closed the connection, or will send nothing more; does not wait.

    What it has sent before may still be unread.
    """
    return _is_reported(sock, select.POLLRDHUP)


def has_input(sock: socket.socket) -> bool:
    """Whether the peer has sent something that was not read, or has closed the connection."""
    return _is_reported(sock, select.POLLIN | select.POLLRDHUP)


def _is_reported(sock: socket.socket, events: int) -> bool:
    poller = _poll()
    try:
        poller.register(sock.fileno(), events)
    except (OSError, ValueError):
        return True
    return bool(poller.poll(0))
