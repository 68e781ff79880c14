"""From an HTTP request to the arguments of an operation."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import falcon
import msgspec

from zaqar_gevent import long_documents
from zaqar_gevent.api import documents, errors, posts
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.long_documents import VERY_LONG_BYTES, CutPost
from zaqar_gevent.rest.request import Request

# The integers that a document can hold, and so metadata.
_INT64 = range(-(2**63), 2**63)

# Upstream answers bodies somewhat over the limit with 400, so 413 is left to those far over it.
ABSURD_BYTES = 8 * 1024 * 1024

_INTEGER = re.compile(r'-?[0-9]+')
_NUMBER = re.compile(r'-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?')

_FORM = 'application/x-www-form-urlencoded'
_WITH_BODY = frozenset(('POST', 'PUT', 'PATCH'))

Reader = Callable[[Request, str], Any]


def _read_text(req: Request, name: str) -> str | None:
    return req.get_param(name)


def _read_integer(req: Request, name: str) -> int | None:
    _check_digits(req, name, _INTEGER, 'an integer')
    return req.get_param_as_int(name)


def _read_number(req: Request, name: str) -> float | None:
    _check_digits(req, name, _NUMBER, 'a number')
    return req.get_param_as_float(name)


def _check_digits(req: Request, name: str, pattern: re.Pattern[str], kind: str) -> None:
    """Refuse what Python also reads as a number: `1_0`, ` 1`, digits of other scripts, `nan`."""
    if pattern.fullmatch(req.get_param(name) or '') is None:
        raise falcon.HTTPInvalidParam(f'The value must be {kind}.', name)


def _read_boolean(req: Request, name: str) -> bool | None:
    return req.get_param_as_bool(name)


def _read_list(req: Request, name: str) -> list[str] | None:
    return req.get_param_as_list(name)


_READERS: dict[Any, Reader] = {
    str: _read_text,
    int: _read_integer,
    float: _read_number,
    bool: _read_boolean,
    list: _read_list,
}


def _reader_of(annotation: Any) -> Reader:
    """How a query parameter of the annotated type is read."""
    if isinstance(annotation, types.UnionType):
        annotation = next(arg for arg in typing.get_args(annotation) if arg is not types.NoneType)
    return _READERS[typing.get_origin(annotation) or annotation]


class BodyLimits(NamedTuple):
    """The longest body that any operation takes, in bytes, and the most levels of nesting."""

    max_bytes: int
    max_depth: int


class ArgumentReader:
    """Reads the arguments of one operation from path, query and body.

    required: the query parameters without which it is another operation that is meant.
    """

    def __init__(self, operation: Operation, limits: BodyLimits) -> None:
        self._operation = operation
        self._limits = limits
        fields = {field.name: field for field in msgspec.structs.fields(operation.request)}
        self._is_post = 'messages' in fields
        self._query: dict[str, tuple[str, Reader]] = {}
        self.required: list[str] = []
        for parameter in operation.route.query:
            field = fields[operation.member(parameter)]
            self._query[parameter] = (field.name, _reader_of(field.type))
            if field.required:
                self.required.append(parameter)

    def read(
        self, req: Request, path: dict[str, Any], project_id: str | None
    ) -> tuple[dict[str, Any], int | None]:
        """The arguments, and how many bytes of body were sent (None without a body).

        project_id: of whoever asks; projects take turns with long bodies.

        What the path says wins over the query, and the query over the body. The query as it was
        read is left in `req.query`. Raises `errors.APIError` or `falcon.HTTPError` for what
        cannot be read.
        """
        arguments: dict[str, Any] = {}
        size = None
        if req.method in _WITH_BODY:
            size = self._read_body(req, arguments, project_id)
        if req.query_string and req.params:
            self._read_query(req, arguments)
        if self._operation.filters is not None:
            filters = arguments[self._operation.filters] = self._read_filters(req)
            req.query.update(filters)
        arguments.update(path)
        return arguments, size

    def _read_query(self, req: Request, arguments: dict[str, Any]) -> None:
        for parameter, (member, reader) in self._query.items():
            if parameter in req.params:
                try:
                    value = reader(req, parameter)
                except IndexError:
                    # Falcon makes an empty list of commas alone.
                    raise falcon.HTTPInvalidParam('It has no value.', parameter) from None
                if value is not None:
                    req.query[parameter] = arguments[member] = value

    def _read_body(
        self, req: Request, arguments: dict[str, Any], project_id: str | None
    ) -> int | None:
        _check_media_type(req, self._operation)
        body = _read_bytes(req, self._limits.max_bytes)
        if not body:
            if self._operation.needs_body:
                raise errors.MalformedDocument('The request must have a body, an object - at `$`')
            return None
        if len(body) < long_documents.LONG_BYTES:
            self._read_arguments(body, arguments)
        else:
            with long_documents.exclusive(len(body), project_id):
                self._read_arguments(body, arguments)
        return len(body)

    def _read_arguments(self, body: bytes, arguments: dict[str, Any]) -> None:
        if self._is_post and len(body) >= VERY_LONG_BYTES and self._read_cut(body, arguments):
            return
        payload = self._operation.payload
        if self._is_post and (post := posts.read_post(body, binary=False)) is not None:
            _read_document(documents.check_json, body, self._limits.max_depth)
            arguments.update(post.arguments(binary=False))
            return
        document = _read_document(documents.decode_json, body, self._limits.max_depth)
        if payload is not None:
            expected = list if self._operation.media_types else dict
            if not isinstance(document, expected):
                raise _wrong_type(document, expected)
            arguments[payload] = document
        elif isinstance(document, dict):
            self._check_members(document)
            arguments.update(document)
        else:
            raise _wrong_type(document, dict)

    def _read_cut(self, body: bytes, arguments: dict[str, Any]) -> bool:
        """Read a very long post without its bodies; whether that can be done."""

        def cut_post(document: bytes, max_depth: int) -> CutPost | None:
            return documents.cut_post(document, max_depth, binary=False)

        cut: CutPost | None = _read_document(cut_post, body, self._limits.max_depth)
        if cut is None:
            return False
        post = posts.read_post(cut.document, binary=False)
        if post is not None:
            post.put_back(cut.bodies)
            arguments.update(post.arguments(binary=False))
            return True
        document = _read_document(documents.decode_json, cut.document, self._limits.max_depth)
        if 'messages' not in document:
            return False
        posts.put_back(document, cut.bodies, binary=False)
        arguments.update(document)
        return True

    def _check_members(self, document: dict[str, Any]) -> None:
        for name in self._operation.body_members:
            if name not in document:
                raise errors.MalformedDocument(f'Missing parameter `{name}` - at `$.{name}`')

    def _read_filters(self, req: Request) -> dict[str, Any]:
        return {
            name: _as_number(value) for name, value in req.params.items() if name not in self._query
        }


def _read_document(read: Callable[[bytes, int], Any], body: bytes, max_depth: int) -> Any:
    try:
        return read(body, max_depth)
    except errors.MalformedDocument as error:
        raise errors.MalformedDocument(
            f'The request body could not be parsed. {error.description}'
        ) from None


def _wrong_type(document: Any, expected: type) -> errors.MalformedDocument:
    names: dict[type, str] = {dict: 'an object', list: 'an array'}
    found = names.get(type(document), 'a scalar')
    return errors.MalformedDocument(
        f'Document type not supported: expected {names[expected]}, got {found} - at `$`'
    )


def _as_number(value: str | list[str]) -> str | int | list[str]:
    """A filter's value: an integer where it reads as one, since a query has only text."""
    if isinstance(value, list) or _INTEGER.fullmatch(value) is None:
        return value
    try:
        number = int(value)
    except ValueError:
        # Python reads no more than some thousands of digits.
        return value
    return number if number in _INT64 else value


def _check_media_type(req: Request, operation: Operation) -> None:
    content_type = req.content_type
    if operation.media_types and content_type not in operation.media_types:
        raise errors.UnsupportedMediaType(
            f'Accepted media type for {req.method}: {", ".join(operation.media_types)}.'
        )
    if content_type is not None and content_type.lower() == _FORM and req.content_length:
        raise errors.BadRequest(
            f'This endpoint does not accept `{_FORM}`; send `application/json`.',
            title='Invalid Content-Type',
        )


def _read_bytes(req: Request, max_bytes: int) -> bytes:
    """The body, whether its length was announced or it comes in chunks.

    One that no operation takes is refused unread: with 400 as upstream does, or with 413 where it
    is out of all proportion. Raises a client error for one that is late, incomplete or has bad
    chunks.
    """
    length = req.content_length
    if length is None:
        if 'chunked' not in (req.get_header('Transfer-Encoding') or '').lower():
            return b''
    elif length > max_bytes:
        if length > max(ABSURD_BYTES, max_bytes):
            raise errors.BodyTooLarge(f'The request body may be at most {max_bytes} bytes.')
        raise _too_large(max_bytes)
    elif not length:
        return b''
    try:
        body: bytes = req.env['wsgi.input'].read(max_bytes + 1 if length is None else length)
    except TimeoutError:
        raise errors.RequestTimeout(
            'The body of the request came too slowly. Send it faster, or in several requests.'
        ) from None
    except OSError as error:
        raise errors.MalformedDocument(f'The request body is not whole: {error}') from None
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _too_large(max_bytes: int) -> errors.BadRequest:
    return errors.BadRequest(f'The request body is too large. Max size {max_bytes} bytes.')
