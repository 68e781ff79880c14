"""The opening handshake, RFC 6455 section 4.2, from a WSGI environment.

What is refused is refused with one of the errors of the API, and so with a complete JSON body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from zaqar_gevent.api import errors
from zaqar_gevent.websocket.engines.websockets import LOG

VERSION = '13'
_TITLE = 'WebSocket handshake refused'
_HEADERS = ('Connection', 'Upgrade', 'Sec-WebSocket-Key', 'Sec-WebSocket-Version')
_OFFERS = ('Sec-WebSocket-Extensions', 'Sec-WebSocket-Protocol')


class Accepted(NamedTuple):
    """A handshake that succeeded: the 101 to send, and what was negotiated."""

    response: bytes
    subprotocol: str | None
    extensions: Sequence[Any]


def accept(
    environ: Mapping[str, Any], extensions: Sequence[Any], subprotocols: Sequence[str]
) -> Accepted:
    """Accept the upgrade request in `environ`.

    extensions: factories of what may be negotiated. subprotocols: those known, the best first.

    Raises `errors.BadRequest`, or `errors.UpgradeRequired` for another version of the protocol.
    """
    _check(environ)
    offered: Any = {'subprotocols': subprotocols, 'extensions': extensions}
    protocol = ServerProtocol(select_subprotocol=_select, logger=LOG, **offered)
    response = protocol.accept(Request(environ['PATH_INFO'], _headers_of(environ)))
    if response.status_code != 101:
        refusal = errors.UpgradeRequired if response.status_code == 426 else errors.BadRequest
        raise refusal(bytes(response.body or b'').decode().strip(), title=_TITLE)
    # They are the connection's now: until the next garbage collection the protocol would keep what
    # is left in them.
    negotiated, protocol.extensions = protocol.extensions, []
    return Accepted(response.serialize(), protocol.subprotocol, negotiated)


def check_version(environ: Mapping[str, Any]) -> None:
    """Raise `errors.UpgradeRequired` unless the client speaks version 13."""
    version = environ.get('HTTP_SEC_WEBSOCKET_VERSION', '')
    if version != VERSION:
        raise errors.UpgradeRequired(
            f'The WebSocket protocol version must be {VERSION}, not {version or "missing"}.'
        )


def _check(environ: Mapping[str, Any]) -> None:
    """What comes before the headers of the protocol itself."""
    if environ['REQUEST_METHOD'] != 'GET':
        raise errors.BadRequest('The request must be a GET.', title=_TITLE)
    if environ.get('SERVER_PROTOCOL') != 'HTTP/1.1':
        raise errors.BadRequest('The request must be of HTTP/1.1.', title=_TITLE)
    # Several of a name are joined by commas.
    if not environ.get('HTTP_HOST') or ',' in environ['HTTP_HOST']:
        raise errors.BadRequest('The request must have one Host.', title=_TITLE)
    if environ.get('CONTENT_LENGTH') not in (None, '', '0') or 'HTTP_TRANSFER_ENCODING' in environ:
        raise errors.BadRequest('The request must have no body.', title=_TITLE)
    check_version(environ)


def _headers_of(environ: Mapping[str, Any]) -> Headers:
    variables = ((name, f'HTTP_{name.upper().replace("-", "_")}') for name in _HEADERS + _OFFERS)
    return Headers([(name, environ[key]) for name, key in variables if key in environ])


def _select(protocol: ServerProtocol, offered: Sequence[str]) -> Any:
    """The best subprotocol that both know; a client that offers only others gets the default."""
    known = protocol.available_subprotocols or ()
    return next((name for name in known if name in offered), None)
