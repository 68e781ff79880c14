"""The proxies that the clients are tried behind do what they are for."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import requests
import websocket

from tests.callers import CompactCaller, RestCaller
from tests.intermediaries import MODES, Intermediary
from tests.server_process import ServerProcess


@pytest.fixture
def between(server: ServerProcess) -> Iterator[Intermediary]:
    with Intermediary(server.port, seconds=3.0) as intermediary:
        yield intermediary


def upgraded(intermediary: Intermediary) -> CompactCaller:
    return CompactCaller(f'ws://127.0.0.1:{intermediary.port}/', binary=False)


def connect(intermediary: Intermediary, timeout: float = 60.0) -> websocket.WebSocket:
    return websocket.create_connection(f'ws://127.0.0.1:{intermediary.port}/', timeout=timeout)


@pytest.mark.parametrize('mode', MODES)
def test_rest_gets_through_each(between: Intermediary, mode: str) -> None:
    between.switch(mode)
    caller = RestCaller(between.url)
    for number in range(3):
        messages = [{'body': number}]
        assert caller.call('message_post', queue_name='q', messages=messages).status == 201
    listed = caller.call('message_list', queue_name='q', echo=True).body['messages']
    assert [message['body'] for message in listed] == [0, 1, 2]
    assert between.connections == 1
    caller.close()


def test_an_open_one_lets_everything_through(between: Intermediary) -> None:
    caller = upgraded(between)
    assert caller.call('ping').status == 200
    caller.close()
    assert between.upgrades == 1


def test_a_stripped_upgrade_is_answered_like_any_request(between: Intermediary) -> None:
    between.switch('strip')
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(between)
    assert refused.value.status_code not in (101, 502)


@pytest.mark.parametrize('mode', ['swallow', 'buffer'])
def test_a_handshake_that_is_swallowed_or_buffered_is_not_answered(
    between: Intermediary, mode: str
) -> None:
    between.switch(mode)
    with pytest.raises(websocket.WebSocketTimeoutException):
        connect(between, timeout=1.0)


def test_a_stalling_one_upgrades_and_then_passes_nothing_on(between: Intermediary) -> None:
    between.switch('stall')
    stalled = connect(between)
    stalled.send('{}')
    stalled.settimeout(1.0)
    with pytest.raises(websocket.WebSocketTimeoutException):
        stalled.recv()
    stalled.shutdown()


def test_a_cutting_one_ends_connections_after_a_while(between: Intermediary) -> None:
    between.switch('cut')
    began = time.monotonic()
    caller = upgraded(between)
    assert caller.call('ping').status == 200
    with pytest.raises((websocket.WebSocketException, OSError)):
        caller.socket.recv()
    assert time.monotonic() - began > 2.9
    caller.socket.shutdown()


def test_a_buffering_one_holds_answers_back(between: Intermediary) -> None:
    between.switch('buffer')
    assert requests.get(between.url, timeout=60).elapsed.total_seconds() > between.hold


def test_a_switch_ends_upgraded_connections_and_no_others(between: Intermediary) -> None:
    rest = RestCaller(between.url)
    rest.call('ping_node')
    caller = upgraded(between)
    caller.call('ping')
    between.switch('open')
    with pytest.raises((websocket.WebSocketException, OSError)):
        caller.socket.recv()
    caller.socket.shutdown()
    made = between.connections
    rest.call('ping_node')
    assert between.connections == made
    rest.close()


def test_one_in_another_process_is_switched_by_its_input(
    server: ServerProcess, tmp_path: pathlib.Path
) -> None:
    command = [sys.executable, '-m', 'tests.intermediaries', 'strip']
    process = subprocess.Popen(
        [*command, '--target', str(server.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())['port']
    with pytest.raises(websocket.WebSocketBadStatusException):
        websocket.create_connection(f'ws://127.0.0.1:{port}/', timeout=60)
    process.stdin.write('open\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == {'mode': 'open'}
    websocket.create_connection(f'ws://127.0.0.1:{port}/', timeout=60).close()
    process.communicate(timeout=60)
    assert process.returncode == 0
