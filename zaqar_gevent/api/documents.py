"""Documents of requests and answers; see `zaqar_gevent.documents`."""

from __future__ import annotations

from typing import Any

from zaqar_gevent import documents, long_documents
from zaqar_gevent.api import errors

MAX_DEPTH = documents.MAX_DEPTH

encode = documents.encode
encode_json = documents.encode_json
encode_msgpack = documents.encode_msgpack


def decode_json(data: bytes | str, max_depth: int = MAX_DEPTH) -> Any:
    """Read one JSON text; raises `errors.MalformedDocument`."""
    try:
        return documents.decode_json(data, max_depth)
    except documents.Malformed as error:
        raise errors.MalformedDocument(str(error)) from None


def decode_msgpack(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Read one MsgPack value; raises `errors.MalformedDocument`."""
    try:
        return documents.decode_msgpack(data, max_depth)
    except documents.Malformed as error:
        raise errors.MalformedDocument(str(error)) from None


def check_json(text: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raise what `decode_json` would raise, but accept an object that has the same key twice."""
    try:
        long_documents.check(text, max_depth, binary=False)
    except documents.Malformed as error:
        raise errors.MalformedDocument(str(error)) from None


def check_msgpack(data: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raise what `decode_msgpack` would raise, but accept an object that has the same key twice."""
    try:
        long_documents.check(data, max_depth, binary=True)
    except documents.Malformed as error:
        raise errors.MalformedDocument(str(error)) from None


def cut_post(
    document: bytes, max_depth: int = MAX_DEPTH, *, binary: bool
) -> long_documents.CutPost | None:
    """See `long_documents.cut_post`; raises `errors.MalformedDocument`."""
    try:
        return long_documents.cut_post(document, max_depth, binary=binary)
    except documents.Malformed as error:
        raise errors.MalformedDocument(str(error)) from None
