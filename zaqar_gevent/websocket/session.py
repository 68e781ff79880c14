"""What one client says over its connection, and what it is answered: messages in, messages out.

A session knows neither sockets nor frames, so it can be driven by anything that has messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Caller, Context, Identity
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.signed_urls import Presented
from zaqar_gevent.websocket import envelope
from zaqar_gevent.websocket.codecs import Codec, codec_of

AUTHENTICATE = 'authenticate'

Identify = Callable[[Mapping[str, str]], Identity]


class Session:
    """The conversation of one connection, in the default envelope.

    identify: says who the token in some headers, by lower-case name, speaks for, or raises
        `errors.APIError`; None on a server that believes headers.
    identity: who has authenticated, if anybody has.
    expires_at: when to end the conversation, in seconds of `time.monotonic`; None for never.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        identify: Identify | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._identify = identify
        self._become(identity)

    def _become(self, identity: Identity | None) -> None:
        """Whatever was known of who asks is known no more."""
        self._identity = identity
        self.expires_at = identity.expires_at if identity else None
        self._headers: Any = None
        self._public_headers: Any = {}
        self._caller = Caller(None, None)
        self._presented: Presented | None = None
        self._environ: Mapping[str, Any] | None = None

    def receive(self, payload: bytes, *, binary: bool) -> bytes:
        """Answer one message, in its own encoding.

        A message that cannot be understood is answered as well, with status 400: this raises
        nothing.
        """
        codec = codec_of(binary=binary)
        try:
            document = _decode(codec, payload)
        except errors.MalformedDocument as error:
            return codec.encode(envelope.wrap({}, {}, error.status, envelope.describe(error)))
        try:
            status, body = self._answer(document, len(payload))
        except errors.APIError as error:
            status, body = error.status, envelope.describe(error)
        return codec.encode(envelope.wrap(document, self._echo(document), status, body))

    def _answer(self, document: dict[str, Any], size: int) -> tuple[int, Any]:
        action = document.get('action')
        if action == AUTHENTICATE:
            return self._authenticate(document)
        operation = self._dispatcher.find(action)
        envelope.check(document)
        self._meet(document.get('headers') or {})
        context = Context(
            self._dispatcher.broker,
            self._caller,
            sent_bytes=size,
            exact_size=False,
            environ=self._environ,
            presented=self._presented,
        )
        return self._dispatcher.call(operation, context, document.get('body') or {})

    def _authenticate(self, document: dict[str, Any]) -> tuple[int, Any]:
        """Replace the identity by that of the token given; one that is refused changes nothing.

        Nothing of the request is echoed but a Request-ID.
        """
        envelope.check(document)
        headers = document.pop('headers', None) or {}
        document.pop('body', None)
        named = {name.lower(): value for name, value in headers.items()}
        if 'request-id' in named:
            document['headers'] = {'Request-ID': named['request-id']}
        if self._identify is None:
            raise errors.BadRequest('This server does not authenticate; send no token.')
        self._become(self._identify(named))
        return 200, {'message': 'Authentified.'}

    def _meet(self, headers: dict[str, str]) -> None:
        """Learn who asks.

        PERF: the requests of a connection nearly always have the same headers.

        All is learnt or nothing: what remained of refused headers must not be taken for known.
        """
        if headers != self._headers:
            presented = envelope.presented_in(headers)
            caller = self._caller_in(headers, presented)
            self._caller, self._presented = caller, presented
            self._environ = self._identity.environ if self._identity and not presented else None
            self._public_headers = envelope.public(headers)
            self._headers = headers

    def _caller_in(self, headers: dict[str, str], presented: Presented | None) -> Caller:
        """Who asks: whom the token names, or the headers where those are believed."""
        named = envelope.caller_of(headers)
        if self._identify is None:
            return named
        if presented is not None:
            return Caller(named.project_id, named.client_id)
        if self._identity is None:
            raise errors.Forbidden('Not authentified.')
        if not named.project_id or named.project_id != self._identity.caller.project_id:
            raise errors.Forbidden("X-Project-ID is not the project of the connection's token.")
        return self._identity.caller._replace(client_id=named.client_id)

    def _echo(self, document: dict[str, Any]) -> Any:
        headers = document.get('headers')
        return self._public_headers if headers == self._headers else envelope.public(headers)


def _decode(codec: Codec, payload: bytes) -> dict[str, Any]:
    try:
        document = codec.decode(payload)
    except errors.MalformedDocument as error:
        raise errors.MalformedDocument(
            f"Can't decode {codec.name} request. {error.description}"
        ) from None
    if not isinstance(document, dict):
        raise errors.MalformedDocument('Unexpected body type. Expected dict or dict like.')
    return document
