"""What h11 refuses is refused, and what both accept means the same to both.

h11 keeps to RFC 9112 as we do, and shares no code with us. It allows some of what the RFC lets a
recipient allow, such as lines that end with LF; we do not, which is no difference that matters
here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import h11
import pytest

from tests.unit.http.mutations import Mutations
from tests.unit.http.pieces import Pieces
from zaqar_gevent.http.body import BrokenBody, ChunkedBody, SizedBody
from zaqar_gevent.http.head import Limits, Refused, read_head

LIMITS = Limits()
# Past what any of the requests has.
MOST_BYTES = 1024 * 1024


class Understood(NamedTuple):
    """What a reader makes of the bytes: the first request, and what follows it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    rest: bytes


def by_h11(data: bytes) -> Understood | None:
    """None where it refuses."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_BYTES)
    body = b''
    try:
        reader.receive_data(data)
        reader.receive_data(b'')
        request = reader.next_event()
        if not isinstance(request, h11.Request):
            return None
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            body += event.data
    except h11.RemoteProtocolError:
        return None
    target = request.target.decode()
    headers = _named(request.headers)
    absolute = re.match('https?://', target, re.IGNORECASE)
    if absolute:
        [authority] = re.findall('^[^/?]*', target[absolute.end() :])
        headers['HTTP_HOST'] = authority
        target = '/' + target[absolute.end() + len(authority) :].removeprefix('/')
    return Understood(request.method.decode(), target, headers, body, reader.trailing_data[0])


def _named(headers: h11.Headers | list[tuple[bytes, bytes]]) -> dict[str, str]:
    """As WSGI names them, without those that have an underscore."""
    named: dict[str, list[str]] = {}
    for name, value in headers:
        if b'_' not in name:
            variable = name.decode().upper().replace('-', '_')
            if variable not in ('CONTENT_TYPE', 'CONTENT_LENGTH'):
                variable = f'HTTP_{variable}'
            named.setdefault(variable, []).append(value.decode('latin-1'))
    return {
        variable: ('; ' if variable == 'HTTP_COOKIE' else ', ').join(values)
        for variable, values in named.items()
    }


def by_us(data: bytes, piece_size: int) -> Understood | None:
    """None where we refuse."""
    stream = Pieces(data, piece_size)
    try:
        while (head := read_head(stream.received, LIMITS)) is None:
            if not stream.fill(piece_size):
                return None
        stream.received = stream.received[head.size :]
        body = (
            ChunkedBody(stream, None)
            if head.length is None
            else SizedBody(stream, head.length, None)
        ).read()
    except (Refused, BrokenBody):
        return None
    headers = {
        name: value
        for name, value in head.variables.items()
        if name.startswith(('HTTP_', 'CONTENT_'))
    }
    if head.length is None:
        # As h11 writes it, in whatever case it came.
        headers['HTTP_TRANSFER_ENCODING'] = headers['HTTP_TRANSFER_ENCODING'].lower()
    variables = head.variables
    return Understood(
        variables['REQUEST_METHOD'], variables['RAW_URI'], headers, body, stream.rest()
    )


def is_excepted(data: bytes) -> bool:
    """Whether h11 refuses what we accept for a reason.

    Empty lines before a request line: RFC 9112, section 2.2, wants at least one to be ignored.
    """
    return data.startswith(b'\r\n')


class Tally:
    """How many requests were accepted by both, by h11 alone, by us alone, and by neither."""

    def __init__(self) -> None:
        self.both = 0
        self.lenient = 0
        self.excepted = 0
        self.neither = 0

    def __str__(self) -> str:
        return (
            f'both accept {self.both}, only h11 {self.lenient}, only we {self.excepted}, '
            f'neither {self.neither}'
        )

    def compare(self, seed: int) -> None:
        """See what both make of the request of that seed."""
        mutations = Mutations(seed)
        data = mutations.mutated()
        ours = by_us(data, mutations.piece_size())
        theirs = by_h11(data)
        if ours is None:
            self.neither += theirs is None
            self.lenient += theirs is not None
        elif theirs is None:
            assert is_excepted(data), (seed, data)
            self.excepted += 1
        else:
            assert ours == theirs, (seed, data)
            self.both += 1


def test_valid_requests_are_accepted_by_both() -> None:
    refused = 0
    for seed in range(2000):
        mutations = Mutations(seed)
        data = mutations.valid()
        ours, theirs = by_us(data, mutations.piece_size()), by_h11(data)
        assert theirs is not None
        if ours is None:
            refused += 1
        else:
            assert ours == theirs, (seed, data)
    assert refused == 0


@pytest.mark.parametrize('count', [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_what_h11_refuses_is_refused(count: int) -> None:
    tally = Tally()
    for seed in range(count):
        tally.compare(seed)
    print(tally)
    assert tally.both > count / 10
    assert tally.neither > count / 10
    assert tally.excepted < count / 100
