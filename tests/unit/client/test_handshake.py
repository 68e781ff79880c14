"""The opening handshake: what is asked, and which answers are taken for yes."""

from __future__ import annotations

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from zaqar_gevent.client import engines
from zaqar_gevent.client.handshake import Accepted, Handshake, Refused

URL = 'ws://example.org:8888/v2/ws?a=b'
YES = (
    'HTTP/1.1 101 Switching Protocols\r\n'
    'Upgrade: WebSocket\r\n'
    'Connection: keep-alive, Upgrade\r\n'
    'Sec-WebSocket-Accept: {accept}'
)


def key_of(handshake: Handshake) -> str:
    [line] = [one for one in handshake.request.split(b'\r\n') if b'Sec-WebSocket-Key' in one]
    return line.split(b': ')[1].decode()


def answered(handshake: Handshake, head: str) -> Accepted | None:
    text = head.replace('{accept}', accept_key(key_of(handshake)))
    return handshake.receive(f'{text}\r\n\r\n'.encode())


@pytest.mark.parametrize('compression', [False, True])
def test_another_implementation_accepts_the_handshake(compression: bool) -> None:
    server = ServerProtocol(
        subprotocols=['zaqar.v2'],  # type: ignore[list-item]
        extensions=[ServerPerMessageDeflateFactory()],
    )
    offered = engines.load('websockets').offer() if compression else ()
    handshake = Handshake(URL, ['zaqar.v2'], {'Extra': 'header'}, offered)
    server.receive_data(handshake.request)
    [request] = server.events_received()
    assert isinstance(request, Request)
    assert request.path == '/v2/ws?a=b'
    assert request.headers['Host'] == 'example.org:8888'
    assert request.headers['Extra'] == 'header'
    server.send_response(server.accept(request))
    accepted = handshake.receive(b''.join(server.data_to_send()) + b'early')
    assert accepted is not None
    assert (accepted.subprotocol, accepted.early) == ('zaqar.v2', b'early')
    assert [one.name for one in accepted.extensions] == ['permessage-deflate'] * compression


@pytest.mark.parametrize('bits', range(9, 16))
def test_a_server_may_ask_for_any_window_of_the_client(bits: int) -> None:
    handshake = Handshake(URL, extensions=engines.load('websockets').offer())
    agreed = f'permessage-deflate; server_max_window_bits=12; client_max_window_bits={bits}'
    accepted = answered(handshake, f'{YES}\r\nSec-WebSocket-Extensions: {agreed}')
    assert accepted is not None
    assert len(accepted.extensions) == 1


def test_a_server_need_not_choose_a_subprotocol() -> None:
    accepted = answered(Handshake(URL, ['zaqar.v2']), YES)
    assert accepted is not None
    assert accepted.subprotocol is None


def test_an_answer_may_come_in_pieces() -> None:
    handshake = Handshake(URL)
    head = YES.replace('{accept}', accept_key(key_of(handshake))) + '\r\n\r\n'
    got = [handshake.receive(one.encode()) for one in head]
    assert got[:-1] == [None] * (len(head) - 1)
    assert got[-1] == (None, [], b'')


def test_an_end_is_no_answer() -> None:
    handshake = Handshake(URL)
    handshake.receive(b'HTTP/1.1 101')
    with pytest.raises(ConnectionResetError):
        handshake.receive(b'')


def test_an_answer_without_an_end_is_a_refusal() -> None:
    handshake = Handshake(URL)
    with pytest.raises(Refused):
        for _ in range(100):
            handshake.receive(b'X' * 1000)


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
        (YES.replace('{accept}', 'AAAA'), 101),
        (YES + '\r\nSec-WebSocket-Extensions: permessage-deflate', 101),
        (YES + '\r\nSec-WebSocket-Protocol: soap', 101),
        (YES + '\r\nSec-WebSocket-Accept: {accept}', 101),
    ],
)
def test_any_other_answer_is_a_refusal(head: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        answered(Handshake(URL, ['zaqar.v2']), head)
    assert refused.value.status == status


@pytest.mark.parametrize(('status', 'is_foreign'), [(200, True), (404, True), (503, False)])
def test_a_refusal_quotes_what_has_come_of_the_answer(status: int, is_foreign: bool) -> None:
    handshake = Handshake(URL)
    with pytest.raises(Refused, match=f'{status}: <h1>Hello</h1>') as refused:
        handshake.receive(f'HTTP/1.1 {status} X\r\n\r\n<h1>Hello</h1>\n'.encode())
    assert ('It may be no Zaqar' in refused.value.reason) is is_foreign


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match='X-Project-ID'):
        Handshake(URL, headers={'X-Project-ID': 'a\r\nX-Roles: admin'})
