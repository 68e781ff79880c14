"""The head of an HTTP/1.1 request, read to the letter of RFC 9112.

picohttpparser (`gunicorn_h1c`) splits the fields and refuses every head that two readers could
understand differently: a space before the colon, a line without a colon, folded lines, bare CR and
LF, NUL and other control characters, two lengths, a length beside a transfer coding. This module
checks the request line, Host, the limits, and that no important header is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import gunicorn_h1c

MAX_LINE_BYTES = 8190
"""The longest request line, in bytes."""

METHODS = frozenset(
    (b'GET', b'HEAD', b'POST', b'PUT', b'PATCH', b'DELETE', b'OPTIONS', b'TRACE'),
)
"""The methods that are known, though not each of them everywhere."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)\r\n")
_OTHER_VERSION = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/[02-9]\.\d(?:\r|$)")
_ABSOLUTE = re.compile(rb'(?i:https?)://([^/?#]+)(.*)')
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?\]|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)(?::\d{0,5})?",
    re.ASCII,
)

# The server acts on the value of these headers, so they must not be repeated.
_SINGLE = frozenset(
    (
        *('HTTP_HOST', 'HTTP_CLIENT_ID', 'HTTP_X_PROJECT_ID', 'HTTP_X_TENANT_ID'),
        *('HTTP_X_AUTH_TOKEN', 'HTTP_X_SERVICE_TOKEN', 'HTTP_AUTHORIZATION'),
        *('HTTP_X_USER_ID', 'HTTP_X_ROLES', 'HTTP_X_OPENSTACK_REQUEST_ID'),
        *('HTTP_URL_SIGNATURE', 'HTTP_URL_EXPIRES', 'HTTP_URL_METHODS', 'HTTP_URL_PATHS'),
        *('CONTENT_TYPE', 'CONTENT_LENGTH', 'HTTP_EXPECT', 'HTTP_TRANSFER_ENCODING'),
    )
)

# Only the values of other headers may have bytes beyond ASCII (RFC 9110, section 5.5).
_ASCII_ONLY = _SINGLE | {
    *('HTTP_ACCEPT', 'HTTP_CONNECTION', 'HTTP_UPGRADE', 'HTTP_ORIGIN', 'HTTP_FORWARDED'),
    *('HTTP_IF_NONE_MATCH', 'HTTP_OPENSTACK_API_VERSION'),
}
_ASCII_ONLY_PREFIXES = ('HTTP_X_', 'HTTP_SEC_WEBSOCKET_', 'HTTP_URL_', 'HTTP_ACCESS_CONTROL_')

_UNPREFIXED = {'HTTP_CONTENT_TYPE': 'CONTENT_TYPE', 'HTTP_CONTENT_LENGTH': 'CONTENT_LENGTH'}

# How a client begins that speaks TLS.
_TLS = b'\x16\x03'

# Some clients send one behind the body of a request.
_MAX_EMPTY_LINES = 8

_MAX_NAMES = 1024
_MAX_NAME_BYTES = 64
_variables: dict[bytes, str] = {}


class Limits(NamedTuple):
    """The most that the head of a request may be: bytes in all, and header fields."""

    head_bytes: int = 32 * 1024
    fields: int = 100


class Refused(Exception):
    """The received bytes are not a valid request, or not one that this server serves.

    status, code, title, description: what the client is told.
    """

    def __init__(self, status: int, code: str, title: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.code = code
        self.title = title
        self.description = description


class Head(NamedTuple):
    """The head of a request.

    variables: what WSGI's environment says of it.
    size: how many bytes it takes of what was received.
    length: of the body, in bytes; None where it comes in chunks.
    expects_continue: whether the client waits for `100 Continue` before it sends the body.
    keeps: whether the client keeps the connection for another request.
    is_old: whether it is of HTTP/1.0.
    """

    variables: dict[str, Any]
    size: int
    length: int | None
    expects_continue: bool
    keeps: bool
    is_old: bool


def read_head(received: bytes, limits: Limits) -> Head | None:
    """The head at the beginning of `received`; None where it is not whole yet.

    A few empty lines before it are skipped. Raises `Refused`.
    """
    skipped = 0
    while received.startswith(b'\r\n', skipped):
        skipped += 2
        if skipped > 2 * _MAX_EMPTY_LINES:
            raise _bad('There are too many empty lines before it.')
    data = received[skipped:] if skipped else received
    end = data.find(b'\r\n\r\n', 0, limits.head_bytes)
    if end < 0:
        _check_part(data, limits)
        return None
    if data.count(b'\r\n', 0, end) > limits.fields:
        raise _too_many(limits)
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise _bad_line(data)
    if line[3] != b'1':
        raise _other_version()
    request = _parse(data, limits)
    if request is None:
        raise _bad('The head is not where it seems to end.')
    return _interpret(line, request['headers'], skipped + request['consumed'])


def _check_part(data: bytes, limits: Limits) -> None:
    """Raise `Refused` if `data` cannot be the beginning of a valid head."""
    if len(data) >= limits.head_bytes:
        raise _too_long(data, limits)
    if data.count(b'\r\n') > limits.fields + 1:
        raise _too_many(limits)
    if data:
        _parse(data, limits)


def _parse(data: bytes, limits: Limits) -> dict[str, Any] | None:
    """The request as the parser finds it; None where it is incomplete."""
    try:
        request: dict[str, Any] = gunicorn_h1c.parse_request(
            data,
            limit_request_line=MAX_LINE_BYTES,
            limit_request_fields=limits.fields,
            limit_request_field_size=limits.head_bytes,
            permit_unconventional_http_method=True,
        )
        return request
    except gunicorn_h1c.IncompleteError:
        return None
    except gunicorn_h1c.LimitRequestLine:
        raise _long_target() from None
    except gunicorn_h1c.LimitRequestHeaders:
        raise _too_many(limits) from None
    except gunicorn_h1c.ParseError as error:
        if data.startswith(_TLS):
            raise _bad_line(data) from None
        if _OTHER_VERSION.match(data) is not None:
            raise _other_version() from None
        raise _bad(f'{error}.') from None


def _interpret(line: re.Match[bytes], fields: list[tuple[bytes, bytes]], size: int) -> Head:
    method, target, *version = line.groups()
    is_old = version[1] == b'0'
    variables: dict[str, Any] = {
        'REQUEST_METHOD': method.decode(),
        'SERVER_PROTOCOL': 'HTTP/1.0' if is_old else 'HTTP/1.1',
    }
    _add_fields(variables, fields)
    if 'HTTP_HOST' in variables:
        _check_host(variables['HTTP_HOST'])
    elif not is_old:
        raise _bad('A request of HTTP/1.1 needs a Host.')
    _add_target(variables, method, target)
    if method not in METHODS:
        raise Refused(
            *(501, 'not_implemented', 'Not implemented'),
            f'The method {variables["REQUEST_METHOD"][:32]} is not known here.',
        )
    return Head(
        variables,
        size,
        _length_of(variables, is_old=is_old),
        'HTTP_EXPECT' in variables and _expects_continue(variables['HTTP_EXPECT'], is_old=is_old),
        _keeps(variables.get('HTTP_CONNECTION', ''), is_old=is_old),
        is_old,
    )


def _add_fields(variables: dict[str, Any], fields: list[tuple[bytes, bytes]]) -> None:
    """Name the fields as WSGI does; several of one name become a list.

    One with an underscore in its name is left out: it would pass for one with a hyphen.
    """
    for name, value in fields:
        variable = _variables.get(name) or _variable_of(name)
        if not variable:
            continue
        text = value.decode('latin-1')
        if not text.isascii() and _is_interpreted(variable):
            raise _bad(f'The header {_name_of(name)} must be ASCII.')
        if variable not in variables:
            variables[variable] = text
        elif variable in _SINGLE:
            raise _bad(f'The header {_name_of(name)} must not be repeated.')
        else:
            variables[variable] += ', ' + text if variable != 'HTTP_COOKIE' else '; ' + text


def _variable_of(name: bytes) -> str:
    """WSGI's name of a header field; empty for one that is left out.

    PERF: those that are usual are remembered.
    """
    text = name.decode('latin-1')
    variable = '' if '_' in text else 'HTTP_' + text.upper().replace('-', '_')
    variable = _UNPREFIXED.get(variable, variable)
    if len(name) <= _MAX_NAME_BYTES and len(_variables) < _MAX_NAMES:
        _variables[name] = variable
    return variable


def _is_interpreted(variable: str) -> bool:
    return variable in _ASCII_ONLY or variable.startswith(_ASCII_ONLY_PREFIXES)


def _add_target(variables: dict[str, Any], method: bytes, target: bytes) -> None:
    """Path and query; of an absolute target its authority is the host (RFC 9112, 3.2.2)."""
    if target[:1] != b'/':
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is not None:
            variables['HTTP_HOST'] = absolute[1].decode()
            _check_host(variables['HTTP_HOST'])
            target = absolute[2] if absolute[2][:1] == b'/' else b'/' + absolute[2]
        elif (method, target) != (b'OPTIONS', b'*') and method in METHODS:
            raise _bad('The request target must be a path or an absolute URL of http or https.')
    if b'#' in target:
        raise _bad('The request target must not have a fragment.')
    path, _, query = target.partition(b'?')
    if path == b'*':
        # The server as a whole, of which the root is the closest that the application knows.
        path = b'/'
    if b'%' in path:
        path = unquote_to_bytes(path)
    variables['PATH_INFO'] = path.decode('latin-1')
    variables['QUERY_STRING'] = query.decode()
    variables['RAW_URI'] = target.decode()


def _check_host(host: str) -> None:
    if _HOST.fullmatch(host) is None:
        raise _bad('The Host is not a name or address, with or without a port.')


def _length_of(variables: Mapping[str, Any], *, is_old: bool) -> int | None:
    coding = variables.get('HTTP_TRANSFER_ENCODING')
    if coding is not None:
        if coding.lower() != 'chunked' or is_old:
            raise _bad('Of transfer codings only `chunked` is known, and only in HTTP/1.1.')
        return None
    length = variables.get('CONTENT_LENGTH')
    if length is None:
        return 0
    if not length.isdecimal() or len(length) > 19:
        raise _bad('The Content-Length is not a number of bytes.')
    return int(length)


def _keeps(connection: str, *, is_old: bool) -> bool:
    """Whether the connection is kept (RFC 9112, section 9.3): `close` wins over `keep-alive`."""
    if not connection:
        return not is_old
    options = [option.strip() for option in connection.lower().split(',')]
    return 'close' not in options and (not is_old or 'keep-alive' in options)


def _expects_continue(expectation: str, *, is_old: bool) -> bool:
    """RFC 9110, section 10.1.1; one of HTTP/1.0 is ignored."""
    if expectation.lower() != '100-continue':
        raise Refused(
            *(417, 'expectation_failed', 'Expectation failed'),
            'Of expectations only `100-continue` can be met.',
        )
    return not is_old


def _too_long(data: bytes, limits: Limits) -> Refused:
    if b'\r\n' not in data[: MAX_LINE_BYTES + 2]:
        return _long_target()
    return _too_many(limits)


def _long_target() -> Refused:
    return Refused(
        *(414, 'uri_too_long', 'URI too long'),
        f'The request line may be at most {MAX_LINE_BYTES} bytes long.',
    )


def _too_many(limits: Limits) -> Refused:
    return Refused(
        *(431, 'request_header_fields_too_large', 'Request header fields too large'),
        f'A request may have at most {limits.fields} header fields, and with all of them at most '
        f'{limits.head_bytes} bytes.',
    )


def _bad_line(data: bytes) -> Refused:
    if data.startswith(_TLS):
        return _bad('The client speaks TLS (https, wss), and the server plain HTTP here.')
    line = data.partition(b'\r\n')[0]
    return _long_target() if len(line) > MAX_LINE_BYTES else _bad('The request line is malformed.')


def _other_version() -> Refused:
    return Refused(
        *(505, 'http_version_not_supported', 'HTTP version not supported'),
        'Only HTTP/1.0 and HTTP/1.1 are served.',
    )


def _bad(reason: str) -> Refused:
    return Refused(400, 'bad_request', 'Bad request', f'This is not a valid HTTP request. {reason}')


def _name_of(name: bytes) -> str:
    return name[:_MAX_NAME_BYTES].decode('latin-1')
