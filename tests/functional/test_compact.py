"""The subprotocol `zaqar.v2` on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import requests
import websocket

from tests.callers import CompactCaller, new_identity
from tests.functional.test_websocket import HANDSHAKE
from tests.server_process import ServerProcess


@pytest.fixture(params=[False, True], ids=['json', 'msgpack'])
def caller(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[CompactCaller]:
    caller = CompactCaller(server.websocket_url, binary=request.param)
    yield caller
    caller.close()


class Pipeline:
    """Sends without waiting, in JSON, after a `hello`."""

    def __init__(self, server: ServerProcess) -> None:
        self.socket = websocket.create_connection(
            server.websocket_url, timeout=60, subprotocols=['zaqar.v2']
        )
        self.ask({'action': 'hello', 'headers': new_identity().headers()})

    def send(self, document: dict[str, Any]) -> None:
        self.socket.send(json.dumps(document))

    def receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.socket.recv())
        return answer

    def ask(self, document: dict[str, Any]) -> dict[str, Any]:
        self.send(document)
        return self.receive()

    def post(self, number: int, body: Any) -> None:
        self.send(
            {
                'id': number,
                'action': 'message_post',
                'body': {'queue_name': 'q', 'messages': [{'body': body}]},
            }
        )


@pytest.fixture
def pipeline(server: ServerProcess) -> Iterator[Pipeline]:
    pipeline = Pipeline(server)
    yield pipeline
    pipeline.socket.close()


def encode(caller: CompactCaller, document: Any) -> bytes:
    return msgpack.packb(document) if caller._binary else json.dumps(document).encode()


@pytest.mark.parametrize(
    ('offered', 'agreed'),
    [
        (['zaqar.v2'], 'zaqar.v2'),
        (['chat', 'zaqar.v2'], 'zaqar.v2'),
        ([], None),
    ],
)
def test_the_client_chooses_the_protocol_in_the_handshake(
    server: ServerProcess, offered: list[str], agreed: str | None
) -> None:
    client = websocket.create_connection(server.websocket_url, timeout=60, subprotocols=offered)
    assert client.getsubprotocol() == agreed
    client.send(json.dumps({'action': 'get_versions', 'id': 1}))
    assert ('id' in json.loads(client.recv())) == (agreed is not None)
    client.close()


def test_a_client_that_knows_other_protocols_only_is_offered_none(server: ServerProcess) -> None:
    response = requests.get(
        f'{server.url}/v2/ws',
        headers={**HANDSHAKE, 'Sec-WebSocket-Protocol': 'chat, soap'},
        timeout=60,
        stream=True,
    )
    assert response.status_code == 101
    assert 'Sec-WebSocket-Protocol' not in response.headers
    response.close()


def test_an_answer_is_id_status_and_body_and_echoes_nothing(caller: CompactCaller) -> None:
    document = {
        'id': 'first',
        'action': 'queue_create',
        'headers': {**caller.identity.headers(), 'X-Auth-Token': 'secret'},
        'body': {'queue_name': 'orders'},
    }
    answer = caller.exchange(encode(caller, document))
    assert answer == {'id': 'first', 'status': 201, 'body': 'Queue orders created.'}


def test_an_error_is_that_of_rest(caller: CompactCaller) -> None:
    refused = caller.call('queue_get', queue_name='a b')
    assert refused.status == 400
    assert set(refused.body) == {'code', 'title', 'description'}
    assert refused.body['code'] == 'bad_request'


@pytest.mark.parametrize('ident', [0, -1, 2**63 - 1, '', 'x' * 100])
def test_any_integer_or_string_is_an_id(caller: CompactCaller, ident: int | str) -> None:
    document = {'id': ident, 'action': 'get_versions'}
    assert caller.exchange(encode(caller, document))['id'] == ident


@pytest.mark.parametrize('ident', [None, True, 1.5, [], {}, [1], {'a': 1}])
def test_nothing_else_is_an_id(caller: CompactCaller, ident: Any) -> None:
    answer = caller.exchange(encode(caller, {'id': ident, 'action': 'get_versions'}))
    assert (answer['id'], answer['status']) == (None, 400)
    assert caller.call('ping_node').status == 204


WRONG_DOCUMENTS = [
    None,
    1,
    'text',
    [],
    {},
    {'id': 1},
    {'id': 1, 'action': None},
    {'id': 1, 'action': 1},
    {'id': 1, 'action': []},
    {'id': 1, 'action': '__class__'},
    {'id': 1, 'action': '_hello'},
    {'id': 1, 'action': 'queue_list', 'headers': []},
    {'id': 1, 'action': 'queue_list', 'headers': 'x'},
    {'id': 1, 'action': 'queue_list', 'headers': {'Client-ID': 1}},
    {'id': 1, 'action': 'queue_list', 'body': []},
    {'id': 1, 'action': 'queue_list', 'body': 'x'},
    {'id': 1, 'action': 'hello', 'headers': 1},
    {'id': 1, 'action': 'ping', 'body': 1},
    {'id': 1, 'action': 'authenticate', 'headers': {'X-Auth-Token': 'x'}},
]


@pytest.mark.parametrize('document', WRONG_DOCUMENTS)
def test_a_request_of_the_wrong_form_is_400_and_the_connection_stays(
    caller: CompactCaller, document: Any
) -> None:
    answer = caller.exchange(encode(caller, document))
    expected = document.get('id') if isinstance(document, dict) else None
    assert (answer['id'], answer['status']) == (expected, 400)
    assert answer['body']['description']
    assert caller.call('ping_node').status == 204


def nested(levels: int) -> Any:
    document: Any = 'core'
    for _ in range(levels):
        document = [document]
    return document


REFUSED_FRAMES: dict[str, str | bytes] = {
    'an integer of 65 bits': '{"id": 7, "body": {"a": 9223372036854775808}}',
    'an integer of many digits': '{"body": {"a": -' + '9' * 9000 + '}, "id": 7}',
    'not a number': '{"id": 7, "body": NaN}',
    'infinity': '{"body": [-Infinity], "id": 7}',
    'a name twice': '{"id": 7, "body": {"a": 1, "a": 2}}',
    'too deep': json.dumps({'id': 7, 'body': nested(70)}),
    'too deep, before the id': json.dumps({'body': nested(300), 'id': 7}),
    'too deep, in MsgPack': msgpack.packb({'body': nested(70), 'id': 7}),
    'an integer of 64 bits without sign': msgpack.packb({'body': 2**63, 'id': 7}),
    'not a number, in MsgPack': msgpack.packb({'body': float('nan'), 'id': 7}),
    'bytes': msgpack.packb({'body': b'a', 'id': 7}),
    'an extension': msgpack.packb({'body': msgpack.ExtType(5, b'a'), 'id': 7}),
    'a timestamp': msgpack.packb({'body': msgpack.Timestamp(5), 'id': 7}),
    'a name that is no text': msgpack.packb({'body': {None: 1}, 'id': 7}),
    'text that is not UTF-8': b'\x82\xa2id\x07\xa4body\xa1\xff',
}


@pytest.mark.parametrize('frame', REFUSED_FRAMES.values(), ids=REFUSED_FRAMES)
def test_the_answer_to_a_frame_with_refused_values_has_its_id(
    server: ServerProcess, frame: str | bytes
) -> None:
    caller = CompactCaller(server.websocket_url, binary=isinstance(frame, bytes))
    answer = caller.exchange(frame.encode() if isinstance(frame, str) else frame)
    assert (answer['id'], answer['status']) == (7, 400)
    assert answer['body']['code'] == 'malformed_document'
    assert caller.call('ping_node').status == 204
    caller.close()


UNREADABLE_FRAMES: dict[str, str | bytes] = {
    'no JSON': '{"id": 7, "body": ',
    'no MsgPack': b'\x82\xa2id\x07\xa4body',
    'no object': '[{"id": 7}]',
    'no map': msgpack.packb([7]),
    'far too deep': '{"id": 7, "body": ' + '[' * 100_000 + ']' * 100_000 + '}',
    'an id of 65 bits': '{"id": 9223372036854775808}',
    'an id of 65 bits, in MsgPack': msgpack.packb({'id': 2**63}),
    'an id of many digits': '{"id": ' + '9' * 9000 + '}',
    'half of a surrogate pair as the id': '{"id": "\\ud800", "body": NaN}',
    'true as the id': '{"id": true, "body": NaN}',
    'an array as the id': '{"id": [7], "body": NaN}',
}


@pytest.mark.parametrize('frame', UNREADABLE_FRAMES.values(), ids=UNREADABLE_FRAMES)
def test_the_answer_to_a_frame_without_a_readable_id_has_null(
    server: ServerProcess, frame: str | bytes
) -> None:
    caller = CompactCaller(server.websocket_url, binary=isinstance(frame, bytes))
    answer = caller.exchange(frame.encode() if isinstance(frame, str) else frame)
    assert (answer['id'], answer['status']) == (None, 400)
    assert caller.call('ping_node').status == 204
    caller.close()


def test_ping_needs_nothing_and_is_answered(caller: CompactCaller) -> None:
    answer = caller.exchange(encode(caller, {'action': 'ping'}))
    assert answer == {'id': None, 'status': 200, 'body': {}}
    answer = caller.exchange(encode(caller, {'action': 'ping', 'id': 5}))
    assert answer == {'id': 5, 'status': 200, 'body': {}}


def test_hello_says_what_the_server_allows_and_its_headers_hold(caller: CompactCaller) -> None:
    assert caller.call('queue_list', headers={}).status == 400
    hello = caller.call('hello', headers=caller.identity.headers())
    assert hello.body['protocol'] == 'zaqar.v2'
    assert (hello.body['max_in_flight'], hello.body['max_message_size']) == (64, 327_680)
    assert caller.call('queue_create', headers={}, queue_name='mine').status == 201
    assert len(caller.call('queue_list', headers={}).body['queues']) == 1


def test_the_headers_of_a_request_win_over_those_of_hello(caller: CompactCaller) -> None:
    caller.call('hello', headers=caller.identity.headers())
    other = {'x-project-id': new_identity().project_id}
    assert caller.call('queue_create', headers=other, queue_name='theirs').status == 201
    assert caller.call('queue_list', headers={}).body['queues'] == []
    assert len(caller.call('queue_list', headers=other).body['queues']) == 1


def test_the_headers_of_the_handshake_hold(server: ServerProcess) -> None:
    identity = new_identity()
    client = websocket.create_connection(
        server.websocket_url, timeout=60, subprotocols=['zaqar.v2'], header=identity.headers()
    )
    create = {'id': 1, 'action': 'queue_create', 'body': {'queue_name': 'q'}}
    client.send(json.dumps(create))
    assert json.loads(client.recv())['status'] == 201
    caller = CompactCaller(server.websocket_url, binary=False, identity=identity)
    assert len(caller.call('queue_list').body['queues']) == 1
    caller.close()
    client.close()


def test_each_answer_comes_in_the_encoding_of_its_request(server: ServerProcess) -> None:
    client = websocket.create_connection(
        server.websocket_url, timeout=60, subprotocols=['zaqar.v2']
    )
    client.send(json.dumps({'id': 1, 'action': 'get_versions'}))
    client.send_binary(msgpack.packb({'id': 2, 'action': 'get_versions'}))
    answers = {}
    for _ in range(2):
        opcode, payload = client.recv_data()
        binary = opcode == websocket.ABNF.OPCODE_BINARY
        answer = msgpack.unpackb(payload) if binary else json.loads(payload)
        answers[answer['id']] = binary
    assert answers == {1: False, 2: True}
    client.close()


def test_requests_in_flight_together_are_each_answered_once(pipeline: Pipeline) -> None:
    for number in range(500):
        pipeline.post(number, number)
    answers = [pipeline.receive() for _ in range(500)]
    assert sorted(answer['id'] for answer in answers) == list(range(500))
    assert {answer['status'] for answer in answers} == {201}
    stats = pipeline.ask({'id': 'end', 'action': 'queue_get_stats', 'body': {'queue_name': 'q'}})
    assert stats['body']['messages']['total'] == 500


def test_requests_are_started_in_order(pipeline: Pipeline) -> None:
    """What waits for nothing is answered in the order in which it was started."""
    for number in range(300):
        pipeline.send({'id': number, 'action': 'get_versions'})
    assert [pipeline.receive()['id'] for _ in range(300)] == list(range(300))


def test_a_quick_request_is_answered_before_a_slow_one_that_came_first(pipeline: Pipeline) -> None:
    """A post waits for the disk; what is read waits for nothing."""
    pipeline.post(1, 'slow')
    pipeline.send({'id': 2, 'action': 'get_versions'})
    assert [pipeline.receive()['id'] for _ in range(2)] == [2, 1]


def test_an_id_in_flight_cannot_be_used_again_until_it_is_answered(pipeline: Pipeline) -> None:
    pipeline.post(1, 'first')
    pipeline.post(1, 'second')
    answers = [pipeline.receive(), pipeline.receive()]
    assert sorted(answer['status'] for answer in answers) == [201, 400]
    pipeline.post(1, 'third')
    assert pipeline.receive()['status'] == 201
