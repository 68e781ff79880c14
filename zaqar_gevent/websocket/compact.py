"""The subprotocol `zaqar.v2`: a compact envelope, for clients that want the speed.

::

    {"id": 7, "action": "message_post", "body": {...}, "headers": {...}}

    {"id": 7, "status": 201, "body": {...}}

`id` is the client's, unique among its requests in flight. Headers may be given once, in the
handshake or by the action `hello`, and hold for the connection; a request's own win. Requests may
be in flight together, and their answers come as they are ready.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from zaqar_gevent import long_documents
from zaqar_gevent.api import errors, posts
from zaqar_gevent.api.context import Caller, Context
from zaqar_gevent.api.microversions import MAXIMUM, Version
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.websocket import envelope
from zaqar_gevent.websocket.codecs import CODECS, Codec
from zaqar_gevent.websocket.engines import WebSocketMessage
from zaqar_gevent.websocket.session import (
    AUTHENTICATE,
    UNKNOWN,
    Retractable,
    Session,
    Work,
)

SUBPROTOCOL = 'zaqar.v2'
HELLO = 'hello'
PING = 'ping'

_HANDSHAKE_HEADERS = ('client-id', 'x-project-id', 'x-user-id', 'x-roles')
_TOKEN_HEADERS = ('x-auth-token', 'x-service-token')

Ident = int | str | None


class _Request(msgspec.Struct):
    action: str
    id: int | str | None = None
    headers: dict[str, str] | None = None
    body: dict[str, Any] | None = None


class _Post(msgspec.Struct):
    action: posts.Action
    body: posts.Post
    id: int | str | None = None
    headers: dict[str, str] | None = None


_decode_post = posts.Decoder(_Post).read


def _read_post(
    payload: bytes, *, binary: bool, cut_out: dict[int, memoryview] | None = None
) -> Any:
    """A request that is a post; None for any other. cut_out: bodies that were cut out of it."""
    post = _decode_post(payload, binary=binary)
    if post is not None and cut_out is not None:
        post.body.put_back(cut_out)
    return post


class Asked(NamedTuple):
    """A request that is being answered: its id, encoding, size in bytes, and when it came."""

    ident: Ident
    codec: Codec
    size: int
    began: float


class CompactSession(Session):
    """The conversation of one connection in `zaqar.v2`.

    handshake: the headers of the handshake, by lower-case name.
    """

    protocol = SUBPROTOCOL

    def __init__(
        self,
        *identification: Any,
        handshake: Mapping[str, str],
        **more: Any,
    ) -> None:
        super().__init__(*identification, **more)
        self._given = {name: handshake[name] for name in _HANDSHAKE_HEADERS if name in handshake}
        self._in_flight: set[Ident] = set()
        self._codec = CODECS[False]

    def receive(self, payload: bytes, *, binary: bool) -> bytes | Work:
        """Begin a request: its answer, or what performs it and gives the answer.

        Neither raises anything.
        """
        codec = self._codec = CODECS[binary]
        size, began = len(payload), time.perf_counter()
        asked = Asked(None, codec, size, began)
        action = UNKNOWN
        try:
            post, document = self._understand(codec, payload, _read_post)
            if post is None:
                asked = Asked(_ident_of(document), codec, size, began)
                request = _check(document)
                body = request.body or {}
            else:
                asked = Asked(post.id, codec, size, began)
                request = post
                body = post.body.arguments(binary=binary)
            if request.action in self._own:
                action = request.action
                return self._reply(asked, action, 200, self._own[action](self, request))
            operation = self._dispatcher.find(request.action)
            action = operation.name
            context = self._begin(request, operation, size, binary)
        except errors.MalformedDocument as error:
            if asked.ident is None:
                asked = asked._replace(ident=long_documents.find_id(payload, binary=binary))
            return self._reply(asked, action, error.status, error.to_document())
        except errors.APIError as error:
            return self._reply(asked, action, error.status, error.to_document())
        perform = functools.partial(self._answer, asked, operation, context, body)
        return Work(perform, operation.name in self._dispatcher.long_operations)

    def farewell(self, reason: str, reconnect_after_ms: int) -> WebSocketMessage:
        """The push that says that the server is about to close the connection, and when to come
        back, in the encoding that the client used last."""
        push = {'push': 'closing', 'reason': reason, 'reconnect_after_ms': reconnect_after_ms}
        return WebSocketMessage(self._codec.encode(push), self._codec.binary)

    def _begin(
        self, request: _Request | _Post, operation: Operation, size: int, binary: bool
    ) -> Context:
        if request.id is None:
            raise errors.BadRequest('The request has no id; give it an integer or a string.')
        if request.id in self._in_flight:
            raise errors.BadRequest(
                'A request with this id is in flight already; ids must differ until answered.'
            )
        own = envelope.lower(request.headers) if request.headers else {}
        self._meet({**self._given, **own} if own else self._given, operation)
        context = self._context(size, binary=binary)
        self._in_flight.add(request.id)
        return context

    def _answer(
        self, asked: Asked, operation: Operation, context: Context, body: dict[str, Any]
    ) -> bytes | Retractable:
        try:
            status, result = self._perform(operation, context, body)
        except errors.APIError as error:
            status, result = error.status, error.to_document()
        self._in_flight.discard(asked.ident)
        answer = self._reply(asked, operation.name, status, result, context)
        context.report_size(len(answer))
        return answer if context.undo is None else Retractable(answer, context.take_back)

    def _reply(
        self, asked: Asked, action: str, status: int, body: Any, context: Context | None = None
    ) -> bytes:
        ident, codec, size, began = asked
        answer = codec.encode({'id': ident, 'status': status, 'body': body})
        self._observe(action, codec, status, began, size, len(answer), context)
        return answer

    def _version_in(self, named: dict[str, str], operation: Operation) -> Version:
        """The newest: this protocol is younger than all of them."""
        return MAXIMUM

    def _project_of(self, claimed: Caller) -> str | None:
        """The token's, where the client names none."""
        if claimed.project_id is None and self._identity is not None:
            return self._identity.caller.project_id
        return claimed.project_id

    def _ping(self, request: _Request) -> dict[str, Any]:
        return {}

    def _hello(self, request: _Request) -> Mapping[str, Any]:
        """Remember headers for the connection; a token among them authenticates."""
        named = envelope.lower(request.headers or {})
        if self._identify is not None and 'x-auth-token' in named:
            self._become(self._identify(named))
        public = {name: value for name, value in named.items() if name not in _TOKEN_HEADERS}
        given = {**self._given, **public}
        envelope.check_size(given)
        self._given = given
        return {**self._dispatcher.broker.capabilities, 'protocol': SUBPROTOCOL}

    def _authenticate(self, request: _Request) -> dict[str, Any]:
        """Replace the identity by that of the token given; one that is refused changes nothing."""
        if self._identify is None:
            raise errors.BadRequest('This server does not authenticate; send no token.')
        self._become(self._identify(envelope.lower(request.headers or {})))
        return {'message': 'Authentified.'}

    _own = {PING: _ping, HELLO: _hello, AUTHENTICATE: _authenticate}  # noqa: RUF012


def _ident_of(document: dict[str, Any]) -> Ident:
    """The id to answer with, of whatever a client sent as one."""
    ident = document.get('id')
    return ident if isinstance(ident, int | str) and not isinstance(ident, bool) else None


def _check(document: dict[str, Any]) -> _Request:
    try:
        return msgspec.convert(document, _Request)
    except msgspec.ValidationError as error:
        raise errors.from_decoding(error) from None
