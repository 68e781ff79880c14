"""Heads of requests, read from whatever part of them has come."""

from __future__ import annotations

import pytest

from tests.faults.heads import MALFORMED, URL_BYTES, Malformed, Scene
from zaqar_gevent.http import head as heads
from zaqar_gevent.http.head import Head, Limits, Refused, read_head

LIMITS = Limits()
TARGET = b'GET /v2/queues?limit=1 HTTP/1.1\r\n'
LONG = 'GET /{} HTTP/1.1'


def head_of(received: bytes) -> Head:
    head = read_head(received, LIMITS)
    assert head is not None
    return head


def get(*fields: bytes, line: bytes = TARGET) -> Head:
    return head_of(line + b'Host: localhost\r\n' + b''.join(fields) + b'\r\n')


@pytest.mark.parametrize('malformed', MALFORMED.values(), ids=MALFORMED)
def test_no_part_of_a_malformed_head_is_taken_for_a_head(malformed: Malformed) -> None:
    """However it is cut by the network, and in the end it is refused for the right reason."""
    request = Scene().request(malformed)
    for size in (*range(0, len(request), 1 if len(request) < 4000 else 61), len(request)):
        try:
            assert read_head(request[:size], LIMITS) is None, request[:size]
        except Refused as refused:
            assert refused.status == malformed.status, (refused, request[:size])
            return
    raise AssertionError('it is not refused')


LEGAL = {
    'no headers in HTTP/1.0': b'GET / HTTP/1.0\r\n\r\n',
    'empty lines before it': b'\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'absolute target': b'GET http://a.example:80/x?y HTTP/1.1\r\nHost: b\r\n\r\n',
    'asterisk': b'OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n',
    'address for a host': b'GET / HTTP/1.1\r\nHost: [2001:db8::1]:8888\r\n\r\n',
    'empty host': b'GET / HTTP/1.1\r\nHost:\r\n\r\n',
    'empty value': b'GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\nX-B: \t \r\n\r\n',
    'no space behind a colon': b'GET / HTTP/1.1\r\nHost:a\r\nX-A:1\r\n\r\n',
    'bytes over 127 in a value': b'GET / HTTP/1.1\r\nHost: a\r\nSubject: \xc3\xa9\xff\r\n\r\n',
    'tab in a value': b'GET / HTTP/1.1\r\nHost: a\r\nX-A: b\tc\r\n\r\n',
    'all that a name may have': b"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~1aZ: 1\r\n\r\n",
    'chunks': b'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ChUnKeD\r\n\r\n',
    'as many headers as may be': b'GET / HTTP/1.1\r\nHost: a\r\n'
    + b''.join(b'X-%d: 1\r\n' % number for number in range(LIMITS.fields - 1))
    + b'\r\n',
    'as long a line as may be': LONG.format('x' * (URL_BYTES - len(LONG) + 2)).encode()
    + b'\r\nHost: a\r\n\r\n',
}


@pytest.mark.parametrize('received', LEGAL.values(), ids=LEGAL)
def test_a_legal_head_is_waited_for_and_read_to_its_end(received: bytes) -> None:
    for size in range(len(received)):
        assert read_head(received[:size], LIMITS) is None, received[:size]
    assert head_of(received) == head_of(received + b'\r\n\x00: more')
    assert head_of(received).size == len(received)


def test_a_head_as_long_as_may_be_is_read() -> None:
    rest = LIMITS.head_bytes - len(TARGET + b'Host: a\r\nX-A: \r\n\r\n')
    received = TARGET + b'Host: a\r\nX-A: ' + b'x' * rest + b'\r\n\r\n'
    assert head_of(received).size == LIMITS.head_bytes
    with pytest.raises(Refused) as refused:
        read_head(received.replace(b'X-A', b'X-AB'), LIMITS)
    assert refused.value.status == 431


def test_the_authority_of_an_absolute_target_replaces_the_host() -> None:
    line = b'GET http://other.example:81/v2/queues?limit=1 HTTP/1.1\r\n'
    variables = get(line=line).variables
    assert variables['HTTP_HOST'] == 'other.example:81'
    assert variables['PATH_INFO'] == '/v2/queues'
    assert variables['QUERY_STRING'] == 'limit=1'
    assert variables['RAW_URI'] == '/v2/queues?limit=1'
    assert get(line=b'GET HTTPS://b HTTP/1.1\r\n').variables['PATH_INFO'] == '/'
    assert get(line=b'GET http://b?x HTTP/1.1\r\n').variables['RAW_URI'] == '/?x'


def test_a_name_with_an_underscore_is_not_one_with_a_hyphen() -> None:
    variables = get(b'X_Project_ID: a\r\n', b'X-Project_ID: b\r\n').variables
    assert 'HTTP_X_PROJECT_ID' not in variables
    both = get(b'X_Project_ID: a\r\n', b'X-Project-ID: b\r\n', b'Content_Length: 5\r\n')
    assert both.variables['HTTP_X_PROJECT_ID'] == 'b'
    assert both.length == 0


def test_other_headers_that_repeat_are_one_list() -> None:
    variables = get(b'Accept: a/b\r\n', b'ACCEPT: c/d\r\n', b'Cookie: a\r\n', b'Cookie: b\r\n')
    assert variables.variables['HTTP_ACCEPT'] == 'a/b, c/d'
    assert variables.variables['HTTP_COOKIE'] == 'a; b'


KEPT = [
    (b'HTTP/1.1', b'', True),
    (b'HTTP/1.1', b'close', False),
    (b'HTTP/1.1', b'keep-alive, Close', False),
    (b'HTTP/1.1', b'closed', True),
    (b'HTTP/1.0', b'', False),
    (b'HTTP/1.0', b'Keep-Alive', True),
    (b'HTTP/1.0', b'keep-alive, close', False),
]


@pytest.mark.parametrize(('version', 'options', 'keeps'), KEPT)
def test_who_keeps_the_connection(version: bytes, options: bytes, keeps: bool) -> None:
    line = b'GET / ' + version + b'\r\n'
    fields = [b'Connection: ' + option + b'\r\n' for option in options.split(b', ') if option]
    assert get(*fields, line=line).keeps is keeps
    assert get(b'Connection: ' + options + b'\r\n', line=line).keeps is keeps


def test_an_expectation() -> None:
    assert get(b'Expect: 100-Continue\r\n').expects_continue
    assert not get().expects_continue
    assert not get(b'Expect: 100-continue\r\n', line=b'GET / HTTP/1.0\r\n').expects_continue
    for other in (b'200-ok', b'100-continue, x', b''):
        with pytest.raises(Refused) as refused:
            get(b'Expect: ' + other + b'\r\n')
        assert refused.value.status == 417


def test_what_names_are_remembered_is_bounded() -> None:
    for number in range(5000):
        get(b'X-Odd-%d: 1\r\n' % number)
    assert len(heads._variables) <= 1024
