"""The WebSocket transport on the wire."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator

import msgpack
import pytest
import requests
import websocket

from tests.callers import WebSocketCaller
from tests.server_process import ServerProcess

HANDSHAKE = {
    'Connection': 'Upgrade',
    'Upgrade': 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
}


@pytest.fixture(params=[False, True], ids=['json', 'msgpack'])
def caller(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[WebSocketCaller]:
    caller = WebSocketCaller(server.websocket_url, binary=request.param)
    yield caller
    caller.close()


def assert_connection_lives(caller: WebSocketCaller) -> None:
    assert caller.call('ping_node').status == 204


def test_the_answer_echoes_the_request_and_has_upstreams_shape(caller: WebSocketCaller) -> None:
    headers = {**caller.identity.headers(), 'Request-ID': 'r-1'}
    body = {'queue_name': 'orders', 'messages': [{'body': {'sku': 42}}]}
    encode = msgpack.packb if caller._binary else lambda document: json.dumps(document).encode()
    answer = caller.exchange(encode({'action': 'message_post', 'headers': headers, 'body': body}))
    assert answer['request'] == {
        'action': 'message_post',
        'headers': headers,
        'body': body,
        'api': 'v2',
    }
    assert answer['headers'] == {'status': 201}
    assert list(answer['body']) == ['message_ids']


def test_a_token_is_never_echoed(caller: WebSocketCaller) -> None:
    headers = {**caller.identity.headers(), 'X-Auth-Token': 'secret-token'}
    encode = msgpack.packb if caller._binary else lambda document: json.dumps(document).encode()
    answer = caller.exchange(encode({'action': 'ping_node', 'headers': headers}))
    assert 'secret-token' not in str(answer)


def test_requests_of_one_connection_are_answered_in_order(server: ServerProcess) -> None:
    caller = WebSocketCaller(server.websocket_url, binary=False)
    for number in range(200):
        headers = {**caller.identity.headers(), 'Request-ID': str(number)}
        action = ('message_list', 'message_post', 'ping_node')[number % 3]
        body = {'queue_name': 'orders', 'messages': [{'body': number}]}
        caller.socket.send(json.dumps({'action': action, 'headers': headers, 'body': body}))
    seen = [json.loads(caller.socket.recv())['request']['headers'] for _ in range(200)]
    assert [int(headers['Request-ID']) for headers in seen] == list(range(200))


WRONG_DOCUMENTS = [
    None,
    1,
    'text',
    [],
    {},
    {'action': None},
    {'action': 1},
    {'action': []},
    {'action': {}},
    {'action': '__class__', 'headers': {}, 'body': {}},
    {'action': 'queue_glorify', 'headers': {}, 'body': {}},
    {'action': 'queue_list', 'headers': None},
    {'action': 'queue_list', 'headers': []},
    {'action': 'queue_list', 'headers': 'x'},
    {'action': 'queue_list', 'headers': {'Client-ID': 1, 'X-Project-ID': 'p'}},
    {'action': 'queue_list', 'headers': {'Client-ID': None, 'X-Project-ID': 'p'}},
    {'action': 'queue_list', 'headers': {'Client-ID': 'x', 'X-Project-ID': ['p']}},
    {'action': 'queue_list', 'headers': {}, 'body': []},
    {'action': 'queue_list', 'headers': {}, 'body': 'x'},
]


@pytest.mark.parametrize('document', WRONG_DOCUMENTS, ids=repr)
def test_a_wrong_envelope_is_400_and_the_connection_stays(
    caller: WebSocketCaller, document: object
) -> None:
    assert caller.send(document).status == 400
    assert_connection_lives(caller)


MALFORMED_JSON = [
    b'',
    b'{',
    b'[1,',
    b'nul',
    b'{"action": "ping_node"} x',
    b'{"action": NaN}',
    b'{"action": 1e400}',
    b'{"action": -Infinity}',
    b'{"action": "a", "action": "b"}',
    b'{"action": "a", "\\u0061ction": "b"}',
    b'{"x": "\\ud800"}',
    b'{"x": "\\ud800\\u0041"}',
    b'{"x": ' + b'9' * 5000 + b'}',
    b'{"x": 9223372036854775808}',
    b'{"x": -9223372036854775809}',
    b'[' * 1500 + b']' * 1500,
    b'[' * 100_000,
    b'{"x":' * 65 + b'1' + b'}' * 65,
    '\ufeff{}'.encode(),
]


@pytest.mark.parametrize('payload', MALFORMED_JSON, ids=lambda payload: repr(payload[:30]))
def test_malformed_json_is_400_and_the_connection_stays(
    server: ServerProcess, payload: bytes
) -> None:
    caller = WebSocketCaller(server.websocket_url, binary=False)
    answer = caller.send_raw(payload)
    assert answer.status == 400
    assert answer.body['error']
    assert_connection_lives(caller)
    caller.close()


MALFORMED_MSGPACK = [
    b'',
    b'\xc1',
    b'\x81',
    b'\x91' * 100_000,
    b'\x91' * 400 + b'\xc0',
    b'\xdd\xf0\x00\x00\x00',
    b'\xdf\xff\xff\xff\xff',
    b'\xdb\xff\xff\xff\xff',
    b'\xc9\xff\xff\xff\xff\x01',
    b'\x81\x01\x02',
    b'\x81\xc0\x02',
    b'\x81\xc4\x01a\x02',
    b'\x80\x80',
    b'\x81\xa1x\xd4\x05\x00',
    b'\x81\xa1x\xd6\xff\x00\x00\x00\x01',
    b'\x81\xa1x\xc4\x01a',
    b'\x81\xa1x\xa1\xff',
    b'\x81\xa1x\xcf\xff\xff\xff\xff\xff\xff\xff\xff',
    b'\x81\xa1x\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00',
    b'\x81\xa1x\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00',
]


@pytest.mark.parametrize('payload', MALFORMED_MSGPACK, ids=lambda payload: payload[:12].hex())
def test_malformed_msgpack_is_400_and_the_connection_stays(
    server: ServerProcess, payload: bytes
) -> None:
    caller = WebSocketCaller(server.websocket_url, binary=True)
    answer = caller.send_raw(payload)
    assert answer.status == 400
    assert answer.body['error']
    assert_connection_lives(caller)
    caller.close()


def test_a_message_over_the_limit_closes_with_1009(server: ServerProcess) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60)
    header = b'\x81\xff' + struct.pack('>Q', 262_144 + 65_536 + 1)
    client.sock.sendall(header + b'\0\0\0\0')
    assert close_code(client) == 1009


def test_a_message_in_fragments_over_the_limit_closes_with_1009(server: ServerProcess) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60)
    fragment = b'x' * 65_536
    client.send_frame(websocket.ABNF.create_frame(fragment, websocket.ABNF.OPCODE_TEXT, 0))
    for _ in range(4):
        client.send_frame(websocket.ABNF.create_frame(fragment, websocket.ABNF.OPCODE_CONT, 0))
    client.send_frame(websocket.ABNF.create_frame(b'x', websocket.ABNF.OPCODE_CONT, 0))
    assert close_code(client) == 1009


def test_a_fragmented_message_is_one_message(server: ServerProcess) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60)
    snowman = '{"action": "☃"}'.encode()
    parts = [snowman[:13], snowman[13:14], snowman[14:]]
    opcodes = [websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_CONT, websocket.ABNF.OPCODE_CONT]
    for part, opcode, fin in zip(parts, opcodes, [0, 0, 1], strict=True):
        client.send_frame(websocket.ABNF.create_frame(part, opcode, fin))
        if not fin:
            client.ping('between')
    assert json.loads(client.recv())['body']['error'] == '☃ is not a valid action'


def test_text_that_is_not_utf8_closes_with_1007(server: ServerProcess) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60)
    client.send(b'{"action": "\xff"}', websocket.ABNF.OPCODE_TEXT)
    assert close_code(client) == 1007


def test_an_unmasked_frame_closes_with_1002(server: ServerProcess) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60)
    client.sock.sendall(b'\x81\x02{}')
    assert close_code(client) == 1002


def test_a_close_is_answered_with_its_code(server: ServerProcess) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60)
    client.send_close(4001, b'bye')
    assert close_code(client) == 4001


def test_frames_sent_with_the_handshake_are_not_lost(server: ServerProcess) -> None:
    """A client need not wait for the 101 before it goes on."""
    lines = [f'{name}: {value}' for name, value in HANDSHAKE.items()]
    request = '\r\n'.join(['GET /v2/ws HTTP/1.1', 'Host: localhost', *lines, '', ''])
    frame = websocket.ABNF.create_frame('{"action": "get_versions"}', websocket.ABNF.OPCODE_TEXT)
    with socket.create_connection(('127.0.0.1', server.port), timeout=60) as client:
        client.sendall(request.encode() + frame.format())
        received = b''
        while b'"versions"' not in received:
            data = client.recv(65536)
            assert data
            received += data
    assert received.startswith(b'HTTP/1.1 101 ')


@pytest.mark.parametrize(
    ('changes', 'status'),
    [
        ({'Sec-WebSocket-Version': '8'}, 426),
        ({'Sec-WebSocket-Key': 'short'}, 400),
        ({'Sec-WebSocket-Key': None}, 400),
        ({'Connection': 'keep-alive'}, 426),
    ],
)
def test_a_wrong_handshake_is_refused_with_a_reason(
    server: ServerProcess, changes: dict[str, str | None], status: int
) -> None:
    headers = {name: value for name, value in {**HANDSHAKE, **changes}.items() if value}
    response = requests.get(f'{server.url}/v2/ws', headers=headers, timeout=60)
    assert response.status_code == status
    assert response.json()['description']


def test_many_clients_are_served_together(server: ServerProcess) -> None:
    counts: list[int] = []

    def work(binary: bool) -> None:
        caller = WebSocketCaller(server.websocket_url, binary=binary)
        for number in range(20):
            caller.call('message_post', queue_name='q', messages=[{'body': number}])
        stats = caller.call('queue_get_stats', queue_name='q').body['messages']
        counts.append(stats['total'])
        caller.close()

    threads = [threading.Thread(target=work, args=(bool(number % 2),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 16


def close_code(client: websocket.WebSocket) -> int:
    """Read until the server's close frame and return its code."""
    while True:
        opcode, payload = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(payload[:2])
