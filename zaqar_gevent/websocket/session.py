"""Answers the messages of one client.

A session knows neither sockets nor frames, so it can be driven by anything that has messages.
`Session` is what the envelopes share: who the client is. `DefaultSession` speaks upstream's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from zaqar_gevent import long_documents
from zaqar_gevent.api import documents, errors, microversions, posts
from zaqar_gevent.api.context import Caller, Context, Identity
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.grants import Grant, Reason
from zaqar_gevent.api.microversions import Version
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.api.push import Endpoint, Recipient
from zaqar_gevent.api.signed_urls import SignedRequest
from zaqar_gevent.api.tracing import PARENT, STATE, TraceContext
from zaqar_gevent.long_documents import VERY_LONG_BYTES, CutPost
from zaqar_gevent.websocket import envelope
from zaqar_gevent.websocket.codecs import CODECS, Codec
from zaqar_gevent.websocket.engines import WebSocketMessage

_NOBODY = Caller(None, None)
AUTHENTICATE = 'authenticate'
UNKNOWN = 'unknown'

Identify = Callable[[Mapping[str, str]], Identity]


Post = TypeVar('Post')


class Retractable(msgspec.Struct):
    """An answer that gives the client something; `take_back` is called where it cannot be sent."""

    payload: bytes
    take_back: Callable[[], None]


class Work(NamedTuple):
    """A job that gives an answer and may run beside others; whether the answer may be long."""

    perform: Callable[[], bytes | Retractable]
    is_long: bool


class Observer(Protocol):
    """Counts and logs requests and their answers."""

    def __call__(
        self,
        operation: str,
        protocol: str,
        binary: bool,
        status: int,
        seconds: float,
        caller: Caller,
        bytes_in: int,
        bytes_out: int,
        trace: TraceContext | None,
    ) -> None:
        """Note one.

        operation: its name, or `unknown`. seconds: from the whole request to the whole answer.
        bytes_in, bytes_out: of the messages, envelope included. trace: that the request belongs to.
        """
        ...


class Session:
    """The identity of the client of one connection.

    identify: says who the token in some headers, by lower-case name, speaks for, or raises
        `errors.APIError`; None on a server that believes headers.
    identity: who has authenticated, if anybody has.
    expires_at: when to end the conversation, in seconds since the epoch; None for never.
    is_known: whether the client has authenticated, or presented a pre-signed URL, where it has to.
    endpoint: what can be subscribed of the connection.
    """

    protocol: str

    def __init__(
        self,
        dispatcher: Dispatcher,
        identify: Identify | None = None,
        identity: Identity | None = None,
        observe: Observer | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._has_ended = False
        self._dispatcher = dispatcher
        self._identify = identify
        self._observer = observe
        self.is_known = identify is None
        self._identity: Identity | None = None
        self._grant = Grant()
        self._become(identity)

    def _become(self, identity: Identity | None) -> None:
        """Whatever was known of who asks is known no more.

        What was made as another project or user ends.
        """
        self._renew_grant(identity)
        self._identity = identity
        self.expires_at = identity.expires_at if identity else None
        self.is_known = self.is_known or identity is not None
        self._headers: Any = None
        self._caller = _NOBODY
        self._signed_request: SignedRequest | None = None
        self._signed_grant: Grant | None = None
        self._environ: Mapping[str, Any] | None = None
        self._version: Version | None = None
        self._trace: TraceContext | None = None

    def _renew_grant(self, identity: Identity | None) -> None:
        before, expires_at = self._identity, identity.expires_at if identity else None
        change = _change_between(before, identity)
        if change is None and not self._grant.is_over:
            self._grant.expires_at = expires_at
            return
        self._grant.end(change or Reason.TOKEN_EXPIRED)
        self._grant = Grant(expires_at)
        if before is not None and self._endpoint is not None:
            self._endpoint.end_over()

    def _meet(self, headers: dict[str, str], operation: Operation) -> None:
        """Learn who asks.

        PERF: the requests of a connection nearly always have the same headers.

        All is learnt or nothing: what remained of refused headers must not be taken for known.
        """
        if headers != self._headers:
            envelope.check_size(headers)
            named = envelope.lower(headers)
            signed_request = envelope.signed_request_in(named)
            caller = self._caller_in(named, signed_request)
            version = self._version_in(named, operation)
            quotas = self._dispatcher.broker.project_quotas
            if quotas.limit_connections and not self._has_ended:
                quotas.connected(self, caller.project_id)
            self._caller, self._signed_request = caller, signed_request
            self._signed_grant = signed_request.grant if signed_request else None
            self._environ = (
                self._identity.environ if self._identity and not signed_request else None
            )
            self._version = version
            self._trace = TraceContext.of(named.get(PARENT), named.get(STATE))
            # The next operation may refuse the version that this one let pass.
            self._headers = None if operation.any_version else headers

    def _version_in(self, named: dict[str, str], operation: Operation) -> Version | None:
        """The version of the API that the client asks for, if it asks for one."""
        header = named.get(microversions.HEADER.lower())
        if operation.any_version:
            return microversions.asked_for_or_latest(header)
        return microversions.asked_for(header)

    def _caller_in(self, named: dict[str, str], signed_request: SignedRequest | None) -> Caller:
        """The caller: by the token, or by the headers where those are trusted."""
        claimed = envelope.caller_of(named)
        if self._identify is None:
            return claimed
        if signed_request is not None:
            return Caller(claimed.project_id, claimed.client_id)
        if self._identity is None:
            raise errors.Forbidden('Not authentified.')
        project_id = self._project_of(claimed)
        if not project_id or project_id != self._identity.caller.project_id:
            raise errors.Forbidden("X-Project-ID is not the project of the connection's token.")
        return self._identity.caller._replace(client_id=claimed.client_id)

    def _project_of(self, claimed: Caller) -> str | None:
        """The project that a request of an authenticated client is for."""
        return claimed.project_id

    def check_token(self) -> bool:
        """Validate the token of the connection again; False if it is not valid any more.

        If Keystone cannot be asked now, the token counts as valid.
        """
        identity = self._identity
        if self._identify is None or identity is None:
            return True
        try:
            found = self._identify(identity.tokens)
        except errors.Unauthorized:
            if self._identity is identity:
                self._grant.end(Reason.TOKEN_REVOKED)
            return self._identity is not identity
        except errors.APIError:
            return True
        if self._identity is identity and found.caller != identity.caller:
            # Other roles, say.
            self._become(found)
        return True

    def attach(self, recipient: Recipient) -> None:
        """The connection that the conversation is held over, which can be pushed to."""
        if self._endpoint is not None:
            self._endpoint.attach(recipient)

    def end(self) -> None:
        """The connection has ended."""
        self._has_ended = True
        self._dispatcher.broker.project_quotas.disconnected(self)
        if self._endpoint is not None:
            self._endpoint.close()

    def _context(self, sent_bytes: int, *, binary: bool) -> Context:
        return Context(
            self._dispatcher.broker,
            self._caller,
            sent_bytes=sent_bytes,
            exact_size=False,
            environ=self._environ,
            signed_request=self._signed_request,
            endpoint=self._endpoint,
            grant=self._signed_grant or self._grant,
            binary=binary,
            shows_extensions=self._version is not None and self._version.shows_extensions,
            trace=self._trace,
        )

    def _understand(
        self,
        codec: Codec,
        payload: bytes,
        read_post: Callable[..., Post | None],
        *,
        has_turn: bool = False,
    ) -> tuple[Post | None, dict[str, Any]]:
        """A request: what `read_post` makes of it if it is a post, and otherwise its document.

        Long ones take turns. has_turn: whether it is that of this one.
        """
        if len(payload) >= long_documents.LONG_BYTES and not has_turn:
            with long_documents.exclusive(len(payload), self._caller.project_id or id(self)):
                return self._understand(codec, payload, read_post, has_turn=True)
        if posts.NAME not in payload:
            return None, self._decode(codec, payload)
        cut = self._cut(codec, payload) if len(payload) >= VERY_LONG_BYTES else None
        if cut is not None:
            return self._understand_cut(codec, cut, read_post)
        post = read_post(payload, binary=codec.binary)
        if post is None:
            return None, self._decode(codec, payload)
        # It has been read without looking into the bodies.
        self._read(codec, codec.check, payload)
        return post, {}

    def _cut(self, codec: Codec, payload: bytes) -> CutPost | None:
        def cut_post(document: bytes, max_depth: int) -> CutPost | None:
            return documents.cut_post(document, max_depth, binary=codec.binary)

        cut: CutPost | None = self._read(codec, cut_post, payload)
        return cut

    def _understand_cut(
        self, codec: Codec, cut: CutPost, read_post: Callable[..., Post | None]
    ) -> tuple[Post | None, dict[str, Any]]:
        post = read_post(cut.document, binary=codec.binary, cut_out=cut.bodies)
        if post is not None:
            return post, {}
        document = self._decode(codec, cut.document)
        posts.put_back(document, cut.bodies, binary=codec.binary)
        return None, document

    def _decode(self, codec: Codec, payload: bytes) -> dict[str, Any]:
        try:
            document = codec.decode(payload, self._dispatcher.broker.max_depth)
        except errors.MalformedDocument as error:
            raise _undecodable(codec, error) from None
        if not isinstance(document, dict):
            raise errors.MalformedDocument('Unexpected body type. Expected dict or dict like.')
        return document

    def _read(self, codec: Codec, read: Callable[[bytes, int], Any], payload: bytes) -> Any:
        try:
            return read(payload, self._dispatcher.broker.max_depth)
        except errors.MalformedDocument as error:
            raise _undecodable(codec, error) from None

    def _perform(self, operation: Any, context: Context, body: dict[str, Any]) -> tuple[int, Any]:
        self._dispatcher.authorize(operation, context, body)
        reply = self._dispatcher.perform(operation, context, body)
        # Nobody but its holder can have made a signature that was let in.
        self.is_known = True
        return reply.status, reply.body

    def _observe(
        self,
        operation: str,
        codec: Codec,
        status: int,
        began: float,
        bytes_in: int,
        bytes_out: int,
        context: Context | None = None,
    ) -> None:
        if self._observer is not None:
            seconds = time.perf_counter() - began
            asker, trace = self._caller, None
            if context is not None:
                asker, trace = context.caller, context.trace
            protocol, binary = self.protocol, codec.binary
            self._observer(
                operation, protocol, binary, status, seconds, asker, bytes_in, bytes_out, trace
            )


def _undecodable(codec: Codec, error: errors.MalformedDocument) -> errors.MalformedDocument:
    return errors.MalformedDocument(f"Can't decode {codec.name} request. {error.description}")


def _change_between(before: Identity | None, after: Identity | None) -> Reason | None:
    """What is another than before, so that what was made before has to end."""
    one, other = (identity and identity.caller for identity in (before, after))
    if (one and one.project_id) != (other and other.project_id):
        return Reason.PROJECT_CHANGED
    if (one and one.user_id) != (other and other.user_id):
        return Reason.USER_CHANGED
    return None


class _PostRequest(msgspec.Struct):
    action: posts.Action
    body: msgspec.Raw
    headers: dict[str, str] | None = None


class _KnownPostRequest(msgspec.Struct):
    action: posts.Action
    body: posts.KnownPost
    headers: dict[str, str] | None = None


_read_post_request = posts.Decoder(_PostRequest).read
_read_known_post_request = posts.Decoder(_KnownPostRequest).read


def _read_post(
    payload: bytes, *, binary: bool, cut_out: dict[int, memoryview] | None = None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The members of a request that is a post, and its arguments; None for any other.

    cut_out: bodies that were cut out of it. One with other members cannot be echoed without them,
        and is left to others.

    PERF: a post with members that are not known is read twice, since all of it is echoed.
    """
    frame = _read_known_post_request(payload, binary=binary)
    if frame is not None:
        post = frame.body
    elif cut_out is not None:
        return None
    else:
        frame = _read_post_request(payload, binary=binary)
        post = frame and posts.read_post(frame.body, binary=binary)
    if post is None:
        return None
    if cut_out is not None:
        post.put_back(cut_out)
    document = {'action': frame.action, 'headers': frame.headers, 'body': frame.body}
    return document, post.arguments(binary=binary)


class DefaultSession(Session):
    """The conversation of one connection in the default envelope, upstream's."""

    protocol = 'default'

    def receive(self, payload: bytes, *, binary: bool) -> bytes | Retractable:
        """Answer one message, in its own encoding.

        A message that cannot be understood is answered as well, with status 400: this raises
        nothing.
        """
        began = time.perf_counter()
        codec = CODECS[binary]
        document: dict[str, Any] = {}
        operation: Operation | None = None
        context: Context | None = None
        try:
            post, document = self._understand(codec, payload, _read_post)
            if post is None:
                operation = self._begin(document)
                arguments = document.get('body') or {}
            else:
                document, arguments = post
                operation = self._dispatcher.find(document['action'])
                self._meet(document['headers'] or {}, operation)
            if operation is None:
                status, body = self._authenticate(document)
            else:
                context = self._context(len(payload), binary=binary)
                status, body = self._perform(operation, context, arguments)
        except errors.APIError as error:
            status, body = error.status, envelope.describe(error)
        name = self._name_of(document.get('action')) if operation is None else operation.name
        headers = document.get('headers')
        echoed = self._public_headers if headers == self._headers else envelope.public(headers)
        document = envelope.wrap(document, echoed, status, body)
        if context is not None and self._version is not None:
            document['headers'][microversions.HEADER] = self._version.header
        answer = codec.encode(document)
        if context is not None:
            context.report_size(len(answer))
        self._observe(name, codec, status, began, len(payload), len(answer), context)
        if context is not None and context.undo is not None:
            return Retractable(answer, context.take_back)
        return answer

    def farewell(self, reason: str, reconnect_after_ms: int) -> WebSocketMessage | None:
        """Upstream's envelope has nothing to say it in but the close code."""
        return None

    def _become(self, identity: Identity | None) -> None:
        super()._become(identity)
        self._public_headers: Any = {}

    def _name_of(self, action: Any) -> str:
        if isinstance(action, str) and (
            action in self._dispatcher.operations
            or action in self._dispatcher.connection_operations
            or action == AUTHENTICATE
        ):
            return action
        return UNKNOWN

    def _begin(self, document: dict[str, Any]) -> Operation | None:
        """Learn who asks for what; None where the client authenticates."""
        action = document.get('action')
        if action == AUTHENTICATE:
            return None
        operation = self._dispatcher.find(action)
        headers, body = document.get('headers'), document.get('body')
        # PERF: of most requests the headers are known, and nothing else is to be checked.
        if headers is None or headers != self._headers or not (body is None or type(body) is dict):
            envelope.check(document)
            self._meet(headers or {}, operation)
        return operation

    def _meet(self, headers: dict[str, str], operation: Operation) -> None:
        if headers != self._headers:
            super()._meet(headers, operation)
            self._public_headers = envelope.public(headers)

    def _authenticate(self, document: dict[str, Any]) -> tuple[int, Any]:
        """Replace the identity by that of the token given; one that is refused changes nothing.

        Nothing of the request is echoed but a Request-ID.
        """
        envelope.check(document)
        headers = document.pop('headers', None) or {}
        document.pop('body', None)
        named = envelope.lower(headers)
        if 'request-id' in named:
            document['headers'] = {'Request-ID': named['request-id']}
        if self._identify is None:
            raise errors.BadRequest('This server does not authenticate; send no token.')
        self._become(self._identify(named))
        return 200, {'message': 'Authentified.'}
