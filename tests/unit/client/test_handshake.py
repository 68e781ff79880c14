"""The opening handshake: what is asked, and which answers are taken for yes."""

from __future__ import annotations

import pytest
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from zaqar_gevent.client import handshake
from zaqar_gevent.client.handshake import Refused

KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
YES = (
    'HTTP/1.1 101 Switching Protocols\r\n'
    'Upgrade: WebSocket\r\n'
    'Connection: keep-alive, Upgrade\r\n'
    f'Sec-WebSocket-Accept: {ACCEPT}'
)


def test_another_implementation_accepts_the_handshake() -> None:
    server = ServerProtocol(subprotocols=['zaqar.v2'])  # type: ignore[list-item]
    server.receive_data(
        handshake.request('example.org:8888', '/v2/ws?a=b', KEY, ['zaqar.v2'], {'Extra': 'header'})
    )
    [request] = server.events_received()
    assert isinstance(request, Request)
    assert request.path == '/v2/ws?a=b'
    assert request.headers['Host'] == 'example.org:8888'
    assert request.headers['Extra'] == 'header'
    response = server.accept(request)
    assert isinstance(response, Response)
    server.send_response(response)
    head, _, rest = b''.join(server.data_to_send()).partition(handshake.END_OF_HEAD)
    assert rest == b''
    assert handshake.check(head, KEY, ['zaqar.v2']) == 'zaqar.v2'


def test_a_server_need_not_choose_a_subprotocol() -> None:
    assert handshake.check(YES.encode(), KEY, ['zaqar.v2']) is None


@pytest.mark.parametrize(
    ('head', 'status'),
    [
        ('HTTP/1.1 200 OK\r\nContent-Type: text/html', 200),
        ('HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1', 503),
        ('HTTP/1.1 404 Not Found', 404),
        ('SSH-2.0-OpenSSH_9.2', 0),
        ('HTTP/2 101 Switching Protocols', 0),
        ('HTTP/1.1 one hundred', 0),
        ('', 0),
        (YES.replace('WebSocket', 'h2c', 1), 101),
        (YES.replace('keep-alive, Upgrade', 'keep-alive'), 101),
        (YES.replace(ACCEPT, 'AAAA'), 101),
        (YES + '\r\nSec-WebSocket-Extensions: permessage-deflate', 101),
        (YES + '\r\nSec-WebSocket-Protocol: soap', 101),
        (YES + f'\r\nSec-WebSocket-Accept: {ACCEPT}', 101),
    ],
)
def test_any_other_answer_is_a_refusal(head: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        handshake.check(head.encode(), KEY, ['zaqar.v2'])
    assert refused.value.status == status


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match='X-Project-ID'):
        handshake.request('host', '/', KEY, [], {'X-Project-ID': 'a\r\nX-Roles: admin'})
