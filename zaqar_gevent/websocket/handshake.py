"""The opening handshake, RFC 6455 section 4.2, from a WSGI environment.

What is refused is refused with one of the errors of the API, and so with a complete JSON body.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any, NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.headers import parse_connection, parse_subprotocol, parse_upgrade
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from zaqar_gevent.api import errors
from zaqar_gevent.websocket.engines.websockets import LOG

VERSION = '13'
_TITLE = 'WebSocket handshake refused'
_EXTENSIONS = 'Sec-WebSocket-Extensions'
# 16 bytes in base64.
_KEY = re.compile(r'[A-Za-z0-9+/]{22}==')


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
    try:
        _check_upgrade(environ.get('HTTP_CONNECTION', ''), environ.get('HTTP_UPGRADE', ''))
        key = _key_in(environ)
        answer, negotiated = _negotiate(environ, extensions)
        subprotocol = _choose(environ, subprotocols)
    except InvalidHandshake as error:
        raise errors.BadRequest(f'The handshake is malformed: {error}.', title=_TITLE) from None
    lines = [
        'HTTP/1.1 101 Switching Protocols',
        _date(int(time.time())),
        'Upgrade: websocket',
        'Connection: Upgrade',
        f'Sec-WebSocket-Accept: {accept_key(key)}',
    ]
    if answer is not None:
        lines.append(f'{_EXTENSIONS}: {answer}')
    if subprotocol is not None:
        lines.append(f'Sec-WebSocket-Protocol: {subprotocol}')
    return Accepted('\r\n'.join([*lines, '', '']).encode(), subprotocol, negotiated)


def check_version(environ: Mapping[str, Any]) -> None:
    """Raise `errors.UpgradeRequired` unless the client speaks version 13."""
    version = environ.get('HTTP_SEC_WEBSOCKET_VERSION', '')
    if version != VERSION:
        raise errors.UpgradeRequired(
            f'The WebSocket protocol version must be {VERSION}, not {version or "missing"}.'
        )


def _check(environ: Mapping[str, Any]) -> None:
    """The start of the answer, before the headers of the protocol."""
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


def _check_upgrade(connection: str, upgrade: str) -> None:
    """Raise unless the client asks for an upgrade to WebSocket, and to nothing else.

    PERF: nearly all ask in the same words, which need no parser.
    """
    if connection.lower() != 'upgrade':
        options = parse_connection(connection) if connection else []
        if 'upgrade' not in [option.lower() for option in options]:
            raise _upgrade_required('Connection', 'Upgrade')
    if upgrade.lower() != 'websocket':
        protocols = parse_upgrade(upgrade) if upgrade else []
        if [protocol.lower() for protocol in protocols] != ['websocket']:
            raise _upgrade_required('Upgrade', 'websocket')


def _upgrade_required(header: str, value: str) -> errors.UpgradeRequired:
    return errors.UpgradeRequired(f'The header {header} must say {value}.', title=_TITLE)


def _key_in(environ: Mapping[str, Any]) -> str:
    key: str = environ.get('HTTP_SEC_WEBSOCKET_KEY', '')
    if _KEY.fullmatch(key) is None:
        raise errors.BadRequest(
            'The header Sec-WebSocket-Key must be 16 bytes in base64.', title=_TITLE
        )
    return key


def _negotiate(
    environ: Mapping[str, Any], extensions: Sequence[Any]
) -> tuple[str | None, Sequence[Any]]:
    """The header for the agreed extensions, and these extensions."""
    offered = environ.get('HTTP_SEC_WEBSOCKET_EXTENSIONS')
    if not offered or not extensions:
        return None, ()
    protocol = ServerProtocol(extensions=extensions, logger=LOG)
    return protocol.process_extensions(Headers([(_EXTENSIONS, offered)]))


def _choose(environ: Mapping[str, Any], known: Sequence[str]) -> str | None:
    """The best subprotocol that both know; a client that offers only others gets the default."""
    offered = environ.get('HTTP_SEC_WEBSOCKET_PROTOCOL')
    if not offered:
        return None
    names = [offered] if offered in known else parse_subprotocol(offered)
    return next((name for name in known if name in names), None)


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return f'Date: {formatdate(seconds, usegmt=True)}'
