"""Heads of requests that are not allowed, by RFC 9112 and by what is promised beyond it.

Each is a request that would do something if it were served, and the body that it announces is
another whole request: whoever takes the head for something else than it is serves that one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import NamedTuple

from tests.callers import Identity

LINE = b'%METHOD% %TARGET% HTTP/1.1\r\n'
HOST = b'Host: localhost\r\n'
LENGTH = b'Content-Length: %LENGTH%\r\n'
END_OF_CHUNKS = b'0\r\n\r\n'

URL_BYTES = 8190
"""The longest request line, without its end."""

FIELDS = 100
HEAD_BYTES = 32 * 1024


class Malformed(NamedTuple):
    """A head with something wrong, and what it is answered.

    line, host, length, end: as they are sent; all of them are right unless said otherwise.
    fields: lines between `host` and the headers that say who asks.
    before: what stands before the announced body.
    repeats: whether the fault is that a header comes twice which the request has anyway.
    """

    status: int = 400
    line: bytes = LINE
    host: bytes = HOST
    fields: bytes = b''
    length: bytes = LENGTH
    end: bytes = b'\r\n'
    before: bytes = b''

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> bytes:
        """The head, and `body` behind it."""
        line = self.line.replace(b'%METHOD%', method.encode())
        line = line.replace(b'%TARGET%', target.encode())
        body = self.before + body
        length = self.length.replace(b'%LENGTH%', str(len(body)).encode())
        fields = self.fields.replace(b'%LENGTH%', str(len(body)).encode())
        said = ''.join(f'{name}: {value}\r\n' for name, value in headers.items()).encode()
        return line + self.host + fields + said + length + self.end + body


def line(text: bytes, status: int = 400) -> Malformed:
    """Wrong is the request line."""
    return Malformed(status, line=text)


def field(text: bytes, status: int = 400) -> Malformed:
    """Wrong is what stands between the other header lines."""
    return Malformed(status, fields=text)


def host(text: bytes) -> Malformed:
    """Wrong is what is said of the host."""
    return Malformed(host=text)


def length(text: bytes) -> Malformed:
    """Wrong is the length of the body."""
    return Malformed(length=text)


def coding(text: bytes) -> Malformed:
    """Wrong is the transfer coding; by it the body might be over at once."""
    return Malformed(length=text, before=END_OF_CHUNKS)


LINES = {
    'no version': line(b'%METHOD% %TARGET%\r\n'),
    'version 0.9': line(b'%METHOD% %TARGET% HTTP/0.9\r\n', 505),
    'version 2.0': line(b'%METHOD% %TARGET% HTTP/2.0\r\n', 505),
    'version 1.10': line(b'%METHOD% %TARGET% HTTP/1.10\r\n'),
    'version 1': line(b'%METHOD% %TARGET% HTTP/1\r\n'),
    'version with a comma': line(b'%METHOD% %TARGET% HTTP/1,1\r\n'),
    'version without a slash': line(b'%METHOD% %TARGET% HTTP1.1\r\n'),
    'version with a space': line(b'%METHOD% %TARGET% HTTP /1.1\r\n'),
    'version in lower case': line(b'%METHOD% %TARGET% http/1.1\r\n'),
    'version of another protocol': line(b'%METHOD% %TARGET% RTSP/1.0\r\n'),
    'preface of HTTP/2': line(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505),
    'start of TLS': line(b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n'),
    'space before the method': line(b' %METHOD% %TARGET% HTTP/1.1\r\n'),
    'two spaces before the target': line(b'%METHOD%  %TARGET% HTTP/1.1\r\n'),
    'two spaces before the version': line(b'%METHOD% %TARGET%  HTTP/1.1\r\n'),
    'space behind the version': line(b'%METHOD% %TARGET% HTTP/1.1 \r\n'),
    'tabs for spaces': line(b'%METHOD%\t%TARGET%\tHTTP/1.1\r\n'),
    'space in the target': line(b'%METHOD% %TARGET% x HTTP/1.1\r\n'),
    'NUL in the target': line(b'%METHOD% %TARGET%\x00 HTTP/1.1\r\n'),
    'control byte in the target': line(b'%METHOD% %TARGET%\x1f HTTP/1.1\r\n'),
    'DEL in the target': line(b'%METHOD% %TARGET%\x7f HTTP/1.1\r\n'),
    'byte over 127 in the target': line(b'%METHOD% %TARGET%\xe9 HTTP/1.1\r\n'),
    'fragment in the target': line(b'%METHOD% %TARGET%#x HTTP/1.1\r\n'),
    'target without a slash': line(b'%METHOD% v2%TARGET% HTTP/1.1\r\n'),
    'target of another scheme': line(b'%METHOD% ftp://localhost%TARGET% HTTP/1.1\r\n'),
    'absolute target without a host': line(b'%METHOD% http://%TARGET% HTTP/1.1\r\n'),
    'absolute target with a user': line(b'%METHOD% http://a@localhost%TARGET% HTTP/1.1\r\n'),
    'absolute target with a bad port': line(b'%METHOD% http://localhost:x%TARGET% HTTP/1.1\r\n'),
    'asterisk for a target': line(b'%METHOD% * HTTP/1.1\r\n'),
    'authority for a target': line(b'%METHOD% localhost:80 HTTP/1.1\r\n'),
    'line that ends with LF': line(b'%METHOD% %TARGET% HTTP/1.1\n'),
    'line that ends with CR': line(b'%METHOD% %TARGET% HTTP/1.1\r'),
    'line that ends with CR CR LF': line(b'%METHOD% %TARGET% HTTP/1.1\r\r\n'),
    'CR in the line': line(b'%METHOD% %TARGET%\r HTTP/1.1\r\n'),
    'LF before the line': line(b'\n%METHOD% %TARGET% HTTP/1.1\r\n'),
    'bracket in the method': line(b'%METHOD%[ %TARGET% HTTP/1.1\r\n'),
    'byte over 127 in the method': line(b'%METHOD%\xe9 %TARGET% HTTP/1.1\r\n'),
    'NUL before the method': line(b'\x00%METHOD% %TARGET% HTTP/1.1\r\n'),
    'method in lower case': line(b'delete %TARGET% HTTP/1.1\r\n', 501),
    'unknown method': line(b'PURGE %TARGET% HTTP/1.1\r\n', 501),
    'CONNECT': line(b'CONNECT localhost:80 HTTP/1.1\r\n', 501),
    'target that is too long': line(
        b'%METHOD% %TARGET%?' + b'x' * URL_BYTES + b' HTTP/1.1\r\n', 414
    ),
    'method that is too long': line(b'X' * URL_BYTES + b' %TARGET% HTTP/1.1\r\n', 414),
    'line longer than a head may be': line(
        b'%METHOD% %TARGET%?' + b'x' * HEAD_BYTES + b' HTTP/1.1\r\n', 414
    ),
    'too many empty lines before the line': line(b'\r\n' * 100 + LINE),
}

HOSTS = {
    'no host': host(b''),
    'two hosts': host(HOST + b'Host: example.org\r\n'),
    'a host twice': host(HOST + HOST),
    'two hosts in one line': host(b'Host: localhost, example.org\r\n'),
    'host with a path': host(b'Host: localhost/x\r\n'),
    'host with a user': host(b'Host: a@localhost\r\n'),
    'host with a space': host(b'Host: local host\r\n'),
    'host with a bad port': host(b'Host: localhost:x\r\n'),
    'host with two ports': host(b'Host: localhost:1:2\r\n'),
    'host with half an address': host(b'Host: [::1\r\n'),
    'host with two addresses': host(b'Host: [::1][::2]\r\n'),
    'host with a byte over 127': host(b'Host: loc\xe4lhost\r\n'),
    'absolute target and no host': Malformed(
        line=b'%METHOD% http://localhost%TARGET% HTTP/1.1\r\n', host=b''
    ),
    'absolute target and two hosts': Malformed(
        line=b'%METHOD% http://localhost%TARGET% HTTP/1.1\r\n', host=HOST + HOST
    ),
}

FIELD_LINES = {
    'space before the colon': field(b'X-A : 1\r\n'),
    'tab before the colon': field(b'X-A\t: 1\r\n'),
    'space before the colon of the length': length(b'Content-Length : %LENGTH%\r\n'),
    'tab before the colon of the length': length(b'Content-Length\t: %LENGTH%\r\n'),
    'space before the colon of the coding': coding(b'Transfer-Encoding : chunked\r\n'),
    'space before the colon of a second length': length(LENGTH + b'Content-Length : 0\r\n'),
    'no colon': field(b'X-A\r\n'),
    'no colon but a space': field(b'X-A 1\r\n'),
    'no name': field(b': 1\r\n'),
    'space in a name': field(b'X A: 1\r\n'),
    'space before a name': field(b' X-A: 1\r\n'),
    'only spaces': field(b'  \r\n'),
    'NUL in a name': field(b'X\x00A: 1\r\n'),
    'control byte in a name': field(b'X\x01A: 1\r\n'),
    'DEL in a name': field(b'X\x7fA: 1\r\n'),
    'byte over 127 in a name': field(b'X\xe9A: 1\r\n'),
    'slash in a name': field(b'X/A: 1\r\n'),
    'bracket in a name': field(b'X[A]: 1\r\n'),
    'quote in a name': field(b'"X-A": 1\r\n'),
    'at sign in a name': field(b'X@A: 1\r\n'),
    'NUL in a value': field(b'X-A: a\x00b\r\n'),
    'control byte in a value': field(b'X-A: a\x01b\r\n'),
    'vertical tab in a value': field(b'X-A: a\x0bb\r\n'),
    'escape in a value': field(b'X-A: a\x1b[1m\r\n'),
    'DEL in a value': field(b'X-A: a\x7fb\r\n'),
    'CR in a value': field(b'X-A: a\rX-Project-ID: demo\r\n'),
    'CR at the end of a value': field(b'X-A: a\r\r\n'),
    'CR for the end of a line': field(b'X-A: a\r'),
    'LF for the end of a line': field(b'X-A: a\nX-B: b\r\n'),
    'LF for the end of all lines': Malformed(
        line=LINE.replace(b'\r', b''),
        host=HOST.replace(b'\r', b''),
        fields=b'X-A: a\n',
    ),
    'LF for the end of the head': Malformed(end=b'\n'),
    'CR for the end of the head': Malformed(end=b'\r'),
    'folded by a space': field(b'X-A: a\r\n b\r\n'),
    'folded by a tab': field(b'X-A: a\r\n\tb\r\n'),
    'folded length': length(b'Content-Length:\r\n %LENGTH%\r\n'),
    'folded coding': coding(b'Transfer-Encoding:\r\n chunked\r\n'),
    'fold before the first header': Malformed(host=b' folded\r\n' + HOST),
    'byte over 127 in the project': field(b'X-Project-Id-Of: a\r\nX-Roles: \xe9\r\n'),
    'byte over 127 in the token': field(b'X-Auth-Token: t\xf6ken\r\n'),
    'byte over 127 in the upgrade': field(b'Sec-WebSocket-Protocol: zaqar.v2\xa0\r\n'),
    'byte over 127 in the coding': coding(b'Transfer-Encoding: chunked\xa0\r\n'),
    'byte over 127 in the length': length(b'Content-Length: %LENGTH%\xa0\r\n'),
    'too many headers': field(b''.join(b'X-%d: 1\r\n' % n for n in range(FIELDS)), 431),
    'many times too many headers': field(b''.join(b'X-%d: 1\r\n' % n for n in range(400)), 431),
    'header that is too long': field(b'X-A: ' + b'a' * HEAD_BYTES + b'\r\n', 431),
    'headers that are too long together': field(
        b''.join(b'X-%d: ' % n + b'a' * 1000 + b'\r\n' for n in range(40)), 431
    ),
    'name that is too long': field(b'X' * HEAD_BYTES + b': 1\r\n', 431),
}

LENGTHS = {
    'two lengths': length(b'Content-Length: 0\r\n' + LENGTH),
    'a length twice': length(LENGTH + LENGTH),
    'list of lengths': length(b'Content-Length: %LENGTH%, %LENGTH%\r\n'),
    'list of other lengths': length(b'Content-Length: 0, %LENGTH%\r\n'),
    'length below zero': length(b'Content-Length: -%LENGTH%\r\n'),
    'length with a plus': length(b'Content-Length: +%LENGTH%\r\n'),
    'length in base 16': length(b'Content-Length: 0x40\r\n'),
    'length with a letter': length(b'Content-Length: 4a\r\n'),
    'length with an underscore': length(b'Content-Length: 4_0\r\n'),
    'length with a space': length(b'Content-Length: 4 0\r\n'),
    'length with a point': length(b'Content-Length: %LENGTH%.0\r\n'),
    'length in quotes': length(b'Content-Length: "%LENGTH%"\r\n'),
    'no number for a length': length(b'Content-Length:\r\n'),
    'length past all numbers': length(b'Content-Length: 18446744073709551616\r\n'),
    'length of 400 digits': length(b'Content-Length: ' + b'0' * 400 + b'%LENGTH%\r\n'),
    'length and coding': coding(LENGTH + b'Transfer-Encoding: chunked\r\n'),
    'coding and length': coding(b'Transfer-Encoding: chunked\r\n' + LENGTH),
    'length and unknown coding': coding(LENGTH + b'Transfer-Encoding: identity\r\n'),
    'a coding twice': coding(b'Transfer-Encoding: chunked\r\n' * 2),
    'coding and no coding': coding(b'Transfer-Encoding: chunked\r\nTransfer-Encoding: \r\n'),
    'chunked twice': coding(b'Transfer-Encoding: chunked, chunked\r\n'),
    'gzip and chunked': coding(b'Transfer-Encoding: gzip, chunked\r\n'),
    'chunked and gzip': coding(b'Transfer-Encoding: chunked, gzip\r\n'),
    'chunked and identity': coding(b'Transfer-Encoding: chunked, identity\r\n'),
    'identity': coding(b'Transfer-Encoding: identity\r\n'),
    'unknown coding': coding(b'Transfer-Encoding: xchunked\r\n'),
    'coding with a parameter': coding(b'Transfer-Encoding: chunked;q=1\r\n'),
    'coding in quotes': coding(b'Transfer-Encoding: "chunked"\r\n'),
    'coding behind a comma': coding(b'Transfer-Encoding: ,chunked\r\n'),
    'coding before a comma': coding(b'Transfer-Encoding: chunked,\r\n'),
    'coding with a control byte': coding(b'Transfer-Encoding: \x0bchunked\r\n'),
    'no coding': coding(b'Transfer-Encoding:\r\n'),
    'coding in HTTP/1.0': Malformed(
        line=b'%METHOD% %TARGET% HTTP/1.0\r\n',
        length=b'Transfer-Encoding: chunked\r\n',
        before=END_OF_CHUNKS,
    ),
}

REPEATED = {
    'two projects': field(b'X-Project-ID: demo\r\n'),
    'two projects, one empty': field(b'X-Project-ID:\r\n'),
    'two clients': field(b'client-id: 3381af92-2b9e-11e3-b191-71861300734c\r\n'),
    'two tokens': field(b'X-Auth-Token: a\r\nX-AUTH-TOKEN: b\r\n'),
    'a token twice': field(b'X-Auth-Token: a\r\nX-Auth-Token: a\r\n'),
    'two service tokens': field(b'X-Service-Token: a\r\nX-Service-Token: b\r\n'),
    'two authorizations': field(b'Authorization: a\r\nAuthorization: b\r\n'),
    'two signatures': field(b'URL-Signature: a\r\nURL-Signature: b\r\n'),
    'two media types': field(b'Content-Type: a/b\r\nContent-Type: a/c\r\n'),
    'two expectations': field(b'Expect: 100-continue\r\nExpect: 100-continue\r\n'),
}

MALFORMED = {**LINES, **HOSTS, **FIELD_LINES, **LENGTHS, **REPEATED}


class Scene:
    """A project with a queue; heads that are served change what queues it has.

    request: would delete the queue. smuggled: would post to another one, which then exists.
    """

    KEPT = 'kept'
    SMUGGLED = 'smuggled'

    def __init__(self) -> None:
        self.identity = Identity(uuid.uuid4().hex, str(uuid.uuid4()))
        self.target = f'/v2/queues/{self.KEPT}'
        self.smuggled = post(self.SMUGGLED, self.identity)

    def request(self, malformed: Malformed) -> bytes:
        """The request, with the other one for its body."""
        return malformed.request('DELETE', self.target, self.identity.headers(), self.smuggled)


def post(queue: str, identity: Identity, host: str = 'localhost') -> bytes:
    """A whole request that posts a message."""
    body = b'{"messages": [{"body": "smuggled", "ttl": 300}]}'
    lines = [
        f'POST /v2/queues/{queue}/messages HTTP/1.1',
        f'Host: {host}',
        'Content-Type: application/json',
        f'Content-Length: {len(body)}',
        *(f'{name}: {value}' for name, value in identity.headers().items()),
    ]
    return '\r\n'.join([*lines, '', '']).encode() + body
