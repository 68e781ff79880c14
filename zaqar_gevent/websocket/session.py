"""What one client says over its connection, and what it is answered: messages in, messages out.

A session knows neither sockets nor frames, so it can be driven by anything that has messages.
"""

from __future__ import annotations

from typing import Any

from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Caller, Context
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.websocket import envelope
from zaqar_gevent.websocket.codecs import Codec, codec_of


class Session:
    """The conversation of one connection, in the default envelope."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._headers: Any = None
        self._public_headers: Any = {}
        self._caller = Caller(None, None)

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
        operation = self._dispatcher.find(document.get('action'))
        envelope.check(document)
        self._meet(document.get('headers') or {})
        context = Context(self._dispatcher.broker, self._caller, sent_bytes=size, exact_size=False)
        return self._dispatcher.call(operation, context, document.get('body') or {})

    def _meet(self, headers: dict[str, str]) -> None:
        """Learn who asks.

        PERF: the requests of a connection nearly always have the same headers.
        """
        if headers != self._headers:
            self._caller = envelope.caller_of(headers)
            self._public_headers = envelope.public(headers)
            self._headers = headers

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
