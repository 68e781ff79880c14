"""Requests that are valid, and what becomes of them when something is changed at random."""

from __future__ import annotations

import random
from collections.abc import Callable

TARGETS = (
    *(b'/', b'/v2/queues', b'/v2/queues/q/messages?limit=10&echo=true', b'/%7Ea/b%20c?'),
    *(b'http://example.org/v2/ping', b'https://[2001:db8::1]:8888?x=y', b'*'),
)
METHODS = (b'GET', b'POST', b'PUT', b'PATCH', b'DELETE', b'HEAD', b'OPTIONS')
FIELDS = (
    *(b'Client-ID: 3381af92-2b9e-11e3-b191-71861300734c', b'X-Project-ID: demo', b'Accept: */*'),
    *(b'User-Agent: a/1 (b; c)', b'Cookie: a=b', b'Cookie: c=d', b'Accept: text/html;q=0.5'),
    *(b'X-Auth-Token: gAAAAA', b'X-Empty:', b'x-lower:1', b'Subject: caf\xc3\xa9', b'X-Tab: a\tb'),
    *(b'Content-Type: application/json', b'Connection: keep-alive', b'X_Under: 1', b'TE: trailers'),
    *(b'Upgrade: websocket', b'Connection: Upgrade', b'Expect: 100-continue', b'X-Pad:  a  '),
)
# What a change may bring in.
BYTES = (
    *(b'\r', b'\n', b'\r\n', b'\r\n\r\n', b'\x00', b' ', b'\t', b':', b'\x80', b'\x7f', b'\x0b'),
    *(b',', b';', b'_', b'-', b'+', b'0', b'1', b'f', b'#', b'@', b'[', b'"', b'\x1f', b'\xff'),
)
LINES = (
    *(b'Content-Length: 5', b'Content-Length: 0', b'Transfer-Encoding: chunked', b'Host: other'),
    *(b'Content-Length : 5', b'Transfer-Encoding:\tchunked', b'Transfer-Encoding: identity'),
    *(b' folded', b'\tfolded', b'X-A', b': x', b'', b'5', b'0', b'3;a=b', b'GET / HTTP/1.1'),
    *(b'GET / HTTP/1.0', b'X-Project-ID: other', b'Content-Length: 5, 5', b'Host:'),
)
# What may become of a digit.
NUMBERS = (
    *(b'+%c', b'-%c', b'0%c', b'0x%c', b'%c_0', b'%c.0', b'%c%c', b'%c ', b' %c', b'%c\x0c'),
    b'\xb2',
)
CONTENTS = (b'', b'abcde', b'{"messages": []}', b'x' * 300, b'0\r\n\r\nGET')


class Mutations:
    """Makes requests, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def valid(self) -> bytes:
        """One or two requests that are as they should be."""
        return b''.join(self._request() for _ in range(self._random.choice((1, 1, 2))))

    def mutated(self) -> bytes:
        """The same with one to three changes."""
        data = self.valid()
        kinds: tuple[Callable[[bytes], bytes], ...] = (
            *(self._flip, self._insert, self._insert, self._delete, self._copy_line),
            *(self._move_line, self._add_line, self._edit_number, self._edit_number),
            *(self._replace, self._cut),
        )
        for _ in range(self._random.choice((1, 1, 2, 3))):
            data = self._random.choice(kinds)(data)
        return data

    def noise(self) -> bytes:
        """Bytes that mean nothing."""
        return self._random.randbytes(self._random.randrange(300))

    def piece_size(self) -> int:
        """How much of a request comes at a time."""
        return self._random.choice((1, 3, 17, *[10_000] * 17))

    def _request(self) -> bytes:
        chance = self._random.random
        method = self._random.choice(METHODS)
        target = self._random.choice(TARGETS[:-1] if method != b'OPTIONS' else TARGETS)
        version = b'1.0' if chance() < 0.1 else b'1.1'
        fields = [b'Host: localhost', *self._random.sample(FIELDS, self._random.randrange(6))]
        length, body = self._body(version)
        fields += length
        self._random.shuffle(fields)
        return b'\r\n'.join([method + b' ' + target + b' HTTP/' + version, *fields, b'', body])

    def _body(self, version: bytes) -> tuple[list[bytes], bytes]:
        kind = self._random.randrange(3)
        data = self._random.choice(
            (b'', b'abcde', b'{"messages": []}', b'x' * 300, b'0\r\n\r\nGET')
        )
        if kind == 0:
            return [], b''
        if kind == 1 or version == b'1.0':
            return [b'Content-Length: %d' % len(data)], data
        return [b'Transfer-Encoding: chunked'], self._chunks(data)

    def _chunks(self, data: bytes) -> bytes:
        chunks = b''
        while data:
            size = self._random.randrange(1, len(data) + 1)
            form = self._random.choice((b'%x', b'%X', b'000%x', b'%x;a=b', b'%x;a="b c"'))
            chunks += form % size + b'\r\n' + data[:size] + b'\r\n'
            data = data[size:]
        trailers = self._random.choice((b'', b'', b'X-Checksum: 5\r\n', b'X-A:\r\nX-B: c\r\n'))
        return chunks + self._random.choice((b'0', b'00', b'0;z')) + b'\r\n' + trailers + b'\r\n'

    def _place(self, data: bytes) -> int:
        return self._random.randrange(len(data) + 1)

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return data
        place = self._random.randrange(len(data))
        flipped = data[place] ^ (1 << self._random.randrange(8))
        return data[:place] + bytes([flipped]) + data[place + 1 :]

    def _insert(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + self._random.choice(BYTES) + data[place:]

    def _replace(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + self._random.choice(BYTES) + data[place + 1 :]

    def _delete(self, data: bytes) -> bytes:
        place = self._place(data)
        return data[:place] + data[place + self._random.randrange(1, 4) :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._place(data)]

    def _copy_line(self, data: bytes) -> bytes:
        lines = data.split(b'\r\n')
        lines.insert(self._random.randrange(len(lines)), self._random.choice(lines))
        return b'\r\n'.join(lines)

    def _move_line(self, data: bytes) -> bytes:
        lines = data.split(b'\r\n')
        line = lines.pop(self._random.randrange(len(lines)))
        lines.insert(self._random.randrange(len(lines) + 1), line)
        return b'\r\n'.join(lines)

    def _add_line(self, data: bytes) -> bytes:
        lines = data.split(b'\r\n')
        lines.insert(self._random.randrange(len(lines)), self._random.choice(LINES))
        return b'\r\n'.join(lines)

    def _edit_number(self, data: bytes) -> bytes:
        places = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
        if not places:
            return data
        place = self._random.choice(places)
        edited = self._random.choice((b'%d' % self._random.randrange(10), *NUMBERS))
        edited = edited.replace(b'%c', data[place : place + 1])
        return data[:place] + edited + data[place + 1 :]
