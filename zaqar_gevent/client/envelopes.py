"""The envelopes of requests and answers over a WebSocket: `zaqar.v2`, and upstream's.

A request has an `ident`, by which its answer is known. Answers are read as `Answered`, everything
else as a push, as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from zaqar_gevent.client.errors import ZaqarError
from zaqar_gevent.client.links import Answer

SUBPROTOCOL: Literal['zaqar.v2'] = 'zaqar.v2'


class Answered(NamedTuple):
    """An answer and which request it is for; None where it does not say."""

    ident: int | None
    answer: Answer


class Envelope(Protocol):
    """How documents are wrapped."""

    @property
    def kind(self) -> Literal['zaqar.v2', 'default']: ...

    def wrap(
        self, ident: int, action: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """The request; `headers` are its own, beside those of the connection."""
        ...

    def unwrap(self, document: Any) -> Answered | dict[str, Any]:
        """An answer, or a push."""
        ...


class CompactEnvelope:
    """`zaqar.v2`: the headers are said once, by `hello`."""

    kind: Literal['zaqar.v2'] = SUBPROTOCOL

    def wrap(
        self, ident: int, action: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        document: dict[str, Any] = {'id': ident, 'action': action}
        if body:
            document['body'] = body
        if headers:
            document['headers'] = headers
        return document

    def unwrap(self, document: Any) -> Answered | dict[str, Any]:
        received = _object(document)
        if 'push' in received:
            return received
        ident = received.get('id')
        answer = Answer(_status(received.get('status')), received.get('body'))
        return Answered(ident if isinstance(ident, int) else None, answer)


class DefaultEnvelope:
    """Upstream's: each request says all headers."""

    kind: Literal['default'] = 'default'

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    def wrap(
        self, ident: int, action: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        return {
            'action': action,
            'headers': {**self._headers, **headers, 'Request-ID': str(ident)},
            'body': body,
        }

    def unwrap(self, document: Any) -> Answered | dict[str, Any]:
        received = _object(document)
        if 'request' not in received:
            return received
        headers = received.get('headers') or {}
        answer = Answer(_status(headers.get('status')), received.get('body'))
        request = received['request'] or {}
        echoed = (request.get('headers') or {}).get('Request-ID', '')
        return Answered(int(echoed) if echoed.isdecimal() else None, answer)


def _object(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ZaqarError('The server sent something that is neither an answer nor a push.')
    return document


def _status(status: Any) -> int:
    if not isinstance(status, int):
        raise ZaqarError('The server sent an answer without a status.')
    return status
