"""What a WebSocket client may ask for, as options have it."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests
import websocket

from tests.callers import CompactCaller, WebSocketCaller, new_identity
from tests.exposition import read, value_in
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

ENGINES = ('websockets', 'ws4py')
MAX_IN_FLIGHT = 2


def configure(*lines: str) -> str:
    return '\n'.join(['[drivers:transport:gevent]', *lines, ''])


@pytest.fixture(scope='module')
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on which everything is scarce."""
    config = configure(
        'max_message_size = 4096',
        'max_frame_size = 1024',
        'max_fragments = 8',
        'max_depth = 8',
        f'max_in_flight = {MAX_IN_FLIGHT}',
        'max_requests_per_second = 20',
    )
    with ServerProcess(tmp_path_factory.mktemp('narrow'), config=config) as server:
        yield server


def open_compact(server: ServerProcess) -> websocket.WebSocket:
    return websocket.create_connection(server.websocket_url, timeout=60, subprotocols=['zaqar.v2'])


def close_code(client: websocket.WebSocket) -> int:
    while True:
        opcode, payload = client.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return int.from_bytes(payload[:2])


def test_no_more_requests_are_begun_within_a_second_than_allowed(narrow: ServerProcess) -> None:
    client = open_compact(narrow)
    watch = Stopwatch(narrow.pid)
    began = time.monotonic()
    for number in range(31):
        client.send(json.dumps({'id': number, 'action': 'get_versions'}))
    answers = [json.loads(client.recv()) for _ in range(31)]
    took = time.monotonic() - began
    assert [answer['status'] for answer in answers] == [300] * 31
    assert took > 1.4
    assert watch.seconds() < 10
    client.close()


def test_requests_past_those_in_flight_wait_and_none_is_lost(narrow: ServerProcess) -> None:
    """The store is locked by another program, so that none is answered; one more than may be in
    flight has been read, and the others are in the socket."""
    store = narrow.output[0].partition('store sqlite:///')[2]
    client = open_compact(narrow)
    before = received(narrow)
    identity = new_identity()
    post = {'queue_name': 'q', 'messages': [{'body': 1}]}
    with closing(sqlite3.connect(store, isolation_level=None)) as program:
        program.execute('BEGIN IMMEDIATE')
        for number in range(10):
            request = {'id': number, 'action': 'message_post', 'headers': identity.headers()}
            client.send(json.dumps({**request, 'body': post}))
        deadline = time.monotonic() + 20
        while received(narrow) < before + MAX_IN_FLIGHT + 1:
            assert time.monotonic() < deadline
        time.sleep(0.5)
        assert received(narrow) == before + MAX_IN_FLIGHT + 1
        program.execute('ROLLBACK')
    answers = [json.loads(client.recv()) for _ in range(10)]
    assert sorted(answer['id'] for answer in answers) == list(range(10))
    assert {answer['status'] for answer in answers} == {201}
    client.close()


def received(server: ServerProcess) -> float:
    """How many requests have been read from WebSockets."""
    samples = read(requests.get(f'{server.url}/metrics', timeout=60).text)
    labels = {'direction': 'in', 'encoding': 'json'}
    return value_in(samples, 'websocket_frames_total', **labels)


@pytest.mark.parametrize('size', [1025, 4097])
def test_a_frame_over_the_limit_closes_with_1009(narrow: ServerProcess, size: int) -> None:
    client = websocket.create_connection(narrow.websocket_url, timeout=60)
    client.send('x' * size)
    assert close_code(client) == 1009


@pytest.mark.parametrize(
    'sizes',
    [[1000] * 5, [1] * 9],
    ids=['more bytes than a message may have', 'more frames than a message may have'],
)
def test_a_message_over_the_limit_closes_with_1009(narrow: ServerProcess, sizes: list[int]) -> None:
    client = websocket.create_connection(narrow.websocket_url, timeout=60)
    for number, size in enumerate(sizes):
        opcode = websocket.ABNF.OPCODE_CONT if number else websocket.ABNF.OPCODE_TEXT
        last = number == len(sizes) - 1
        client.send_frame(websocket.ABNF.create_frame('x' * size, opcode, int(last)))
    assert close_code(client) == 1009


def test_the_depth_of_documents_is_limited_over_every_transport(narrow: ServerProcess) -> None:
    identity = new_identity()
    nested: object = 1
    for _ in range(9):
        nested = [nested]
    body = {'messages': [{'body': nested}]}
    url = f'{narrow.url}/v2/queues/q/messages'
    answer = requests.post(url, json=body, headers=identity.headers(), timeout=60)
    assert answer.status_code == 400
    assert 'at most 8 levels' in answer.text
    for kind in (WebSocketCaller, CompactCaller):
        for binary in (False, True):
            caller = kind(narrow.websocket_url, binary=binary, identity=identity)
            refused = caller.call('message_post', queue_name='q', **body)
            assert refused.status == 400
            assert 'at most 8 levels' in str(refused.body)
            assert caller.call('ping_node').status == 204
            caller.close()


@pytest.mark.parametrize('engine', ENGINES)
def test_a_client_that_asks_nothing_is_closed_whatever_pings_it_answers(
    tmp_path: pathlib.Path, engine: str
) -> None:
    config = configure(
        f'websocket_engine = {engine}',
        'idle_timeout = 2',
        'ping_interval = 1',
        'ping_timeout = 5',
    )
    with ServerProcess(tmp_path, config=config) as server:
        busy = CompactCaller(server.websocket_url, binary=False)
        idle = websocket.create_connection(server.websocket_url, timeout=60)
        watch = Stopwatch(server.pid)
        began = time.monotonic()
        code = None
        while code is None:
            idle.settimeout(0.5)
            try:
                # websocket-client answers pings while it receives.
                code = close_code(idle)
            except websocket.WebSocketTimeoutException:
                busy.socket.settimeout(60)
                assert busy.call('ping').status == 200
        assert code == 1000
        assert time.monotonic() - began > 1.4
        assert watch.seconds() < 10
        assert busy.call('ping').status == 200
        busy.close()


@pytest.mark.parametrize('engine', ENGINES)
def test_what_is_received_with_either_engine_is_served(tmp_path: pathlib.Path, engine: str) -> None:
    with ServerProcess(tmp_path, config=configure(f'websocket_engine = {engine}')) as server:
        for binary in (False, True):
            caller = CompactCaller(server.websocket_url, binary=binary)
            large = 'x' * 200_000
            posted = caller.call('message_post', queue_name='q', messages=[{'body': large}])
            assert posted.status == 201
            [message] = caller.call('message_list', queue_name='q', echo=True).body['messages']
            assert message['body'] == large
            caller.close()
        metrics = requests.get(f'{server.url}/metrics', timeout=60).text
        assert f'engine="{engine}"' in metrics


def test_an_engine_that_does_not_exist_is_refused_at_start(tmp_path: pathlib.Path) -> None:
    server = ServerProcess(tmp_path, config=configure('websocket_engine = carrier-pigeon'))
    with pytest.raises(AssertionError, match='websocket_engine'):
        server.start()


@pytest.mark.parametrize('value', [',', ',,'])
@pytest.mark.parametrize(
    'target',
    [
        *('GET /v2/queues?limit=', 'GET /v2/queues?marker=', 'GET /v2/queues/q/messages?echo='),
        *('GET /v2/queues/q/messages?wait=', 'POST /v2/queues/q/claims?limit='),
        'DELETE /v2/queues/q/messages/x?claim_id=',
    ],
)
def test_a_parameter_of_commas_alone_is_400(server: ServerProcess, target: str, value: str) -> None:
    method, path = target.split()
    answer = requests.request(
        method, f'{server.url}{path}{value}', headers=new_identity().headers(), timeout=60
    )
    assert answer.status_code == 400
    assert answer.json()['code'] == 'invalid_parameter'
