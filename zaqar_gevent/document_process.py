"""A process that reads very long documents, for a server that serves others meanwhile.

To read ten megabytes may take a tenth of a second, in which the interpreter does nothing else. The
server starts the process when the first such document comes; it ends when the server does.
"""

from __future__ import annotations

import contextlib
import enum
import os
import socket
import struct
import sys

import msgspec
from msgspec import UNSET, Raw, UnsetType

from zaqar_gevent import bodies, documents


class Task(enum.IntEnum):
    """What to do with a document.

    CHECK: nothing else; the result is empty. CHECK_POST: tell where the long bodies of a post are;
    see `find_bodies`. CHECK_STORED: check what only has to be a document, within no other limits.
    CONVERT: write it in the other encoding. FIND_ID: see `documents.find_id`.
    """

    CHECK = 0
    CHECK_POST = 1
    CHECK_STORED = 2
    CONVERT = 3
    FIND_ID = 4


REQUEST = struct.Struct('!QBB?')
"""Before a document: its size in bytes, the most levels of nesting, the task, whether it is
MsgPack."""

ANSWER = struct.Struct('!?Q')
"""Before the result: whether the document is accepted, and the size of the result in bytes. The
result of one that is not accepted is the reason."""

CUT_BYTES = 4 * 1024
"""Bodies of at least so many bytes are found in a post."""

PLACEHOLDERS = {False: b'null', True: b'\xc0'}
"""What stands in the place of a body that is cut out, by whether the document is MsgPack."""

_NICENESS = 5
_READ_BYTES = 256 * 1024
_START_BYTES = 64
_MOST_TRIES = 100


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where the body of a message is in a post.

    index: of the message. start, size: in bytes.
    """

    index: int
    start: int
    size: int


class _Message(msgspec.Struct):
    body: Raw | UnsetType = UNSET


class _Post(msgspec.Struct):
    messages: list[_Message]


class _Frame(msgspec.Struct):
    """A post over REST, or one in the envelope of a WebSocket message."""

    messages: list[_Message] | UnsetType = UNSET
    body: Raw | UnsetType = UNSET


_DECODERS = {
    binary: (codec.Decoder(_Frame), codec.Decoder(_Post))
    for binary, codec in ((False, msgspec.json), (True, msgspec.msgpack))
}


def cut(document: bytes, places: list[Place], *, binary: bool) -> bytes:
    """The document with a placeholder for each of the bodies at `places`."""
    view = memoryview(document)
    pieces: list[bytes | memoryview] = []
    end = 0
    for place in places:
        pieces += [view[end : place.start], PLACEHOLDERS[binary]]
        end = place.start + place.size
    return b''.join([*pieces, view[end:]])


def find_bodies(document: bytes, *, binary: bool) -> list[Place]:
    """Where the long bodies of the messages of a post are, in order.

    None of them where the document is not a post, or one of them cannot be told from other parts.
    """
    messages = _messages_of(document, binary=binary)
    places: list[Place] = []
    end = 0
    for index, body in enumerate(messages):
        if body is None or len(body) < CUT_BYTES:
            continue
        start = _find(document, body, end)
        if start < 0:
            return []
        end = start + len(body)
        places.append(Place(index, start, len(body)))
    if not places:
        return []
    # What was found may have been the same bytes in another member.
    indexes = {place.index for place in places}
    expected = [
        memoryview(PLACEHOLDERS[binary]) if index in indexes else body
        for index, body in enumerate(messages)
    ]
    is_found = _messages_of(cut(document, places, binary=binary), binary=binary) == expected
    return places if is_found else []


def _messages_of(document: bytes, *, binary: bool) -> list[memoryview | None]:
    """The body of each message of a post; nothing where it is not a post."""
    frame_decoder, post_decoder = _DECODERS[binary]
    try:
        frame = frame_decoder.decode(document)
        found = frame.messages
        if found is UNSET:
            if frame.body is UNSET:
                return []
            found = post_decoder.decode(frame.body).messages
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    return [None if one.body is UNSET else memoryview(one.body) for one in found]


def _find(document: bytes, body: memoryview, start: int) -> int:
    """Where `body` stands in the document from `start` on; -1 where that takes too long."""
    beginning = bytes(body[:_START_BYTES])
    view = memoryview(document)
    for _ in range(_MOST_TRIES):
        start = document.find(beginning, start)
        if start < 0 or view[start : start + len(body)] == body:
            return start
        start += 1
    return -1


def perform(task: Task, document: bytes, max_depth: int, *, binary: bool) -> bytes:
    """The result of a task; raises `documents.Malformed` where the document is not accepted."""
    if task is Task.CHECK_STORED:
        _check_stored(document, binary=binary)
    elif task is Task.CONVERT:
        encoding = bodies.Encoding.MSGPACK if binary else bodies.Encoding.JSON
        body = bodies.Body(encoding, document)
        return bytes(body.in_json() if binary else body.in_msgpack())
    elif task is Task.FIND_ID:
        return msgspec.json.encode(documents.find_id(document, binary=binary))
    else:
        (documents.check_msgpack if binary else documents.check_json)(document, max_depth)
        if task is Task.CHECK_POST:
            return msgspec.json.encode(find_bodies(document, binary=binary))
    return b''


def _check_stored(document: bytes, *, binary: bool) -> None:
    encoding = bodies.Encoding.MSGPACK if binary else bodies.Encoding.JSON
    try:
        bodies.check(encoding, document)
    except (ValueError, msgspec.DecodeError) as error:
        raise documents.Malformed(str(error)) from None


def serve(connection: socket.socket) -> None:
    """Read documents until there are no more."""
    while head := _receive(connection, REQUEST.size):
        size, max_depth, task, binary = REQUEST.unpack(head)
        document = bytes(_receive(connection, size))
        is_accepted = True
        try:
            result = perform(Task(task), document, max_depth, binary=binary)
        except documents.Malformed as error:
            is_accepted = False
            result = str(error).encode(errors='backslashreplace')
        connection.sendall(ANSWER.pack(is_accepted, len(result)))
        connection.sendall(result)


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
