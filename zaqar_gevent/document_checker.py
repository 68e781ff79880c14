"""A process that checks very long documents, for a server that serves others meanwhile.

To check ten megabytes may take a tenth of a second, for which the interpreter does nothing else.
The server starts it when the first such document comes; it ends when the server does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys

from zaqar_gevent import documents

REQUEST = struct.Struct('!QB?')
"""Before a document: its size in bytes, the most levels of nesting, whether it is MsgPack."""

ANSWER = struct.Struct('!I')
"""Before the reason why a document is not accepted: its size in bytes; 0 for one that is."""

_NICENESS = 5
_READ_BYTES = 256 * 1024


def serve(connection: socket.socket) -> None:
    """Check documents until there are no more."""
    while head := _receive(connection, REQUEST.size):
        size, max_depth, binary = REQUEST.unpack(head)
        document = bytes(_receive(connection, size))
        check = documents.check_msgpack if binary else documents.check_json
        reason = b''
        try:
            check(document, max_depth)
        except documents.Malformed as error:
            reason = str(error).encode(errors='backslashreplace')
        connection.sendall(ANSWER.pack(len(reason)) + reason)


def _receive(connection: socket.socket, size: int) -> bytearray:
    """`size` bytes; none where the stream has ended."""
    received = bytearray()
    while len(received) < size:
        data = connection.recv(min(size - len(received), _READ_BYTES))
        if not data:
            return bytearray()
        received += data
    return received


def main() -> None:
    """Serve the process that has started this one, over the socket on standard input."""
    # Those who are served by the server come first.
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    with contextlib.suppress(ConnectionError), socket.socket(fileno=sys.stdin.fileno()) as own:
        own.setblocking(True)
        serve(own)


if __name__ == '__main__':
    main()
