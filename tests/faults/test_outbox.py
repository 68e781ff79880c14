"""Clients that do not take their answers, or take them slowly."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import psutil
import pytest
import requests

from tests.faults.client import COMPACT, DEFAULT, Client, Dialect
from tests.faults.light_load import PROMPT, LightLoad
from tests.server_process import ServerProcess

LARGE = 'x' * 200_000
PAGE = 15
MIB = 2**20
SILENCE_SECONDS = 6.0


@pytest.fixture(scope='module')
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a queue whose first page is 3 MB."""
    lines = ['[drivers:transport:gevent]', 'ping_interval = 4', 'ping_timeout = 2']
    with ServerProcess(tmp_path_factory.mktemp('stocked'), config='\n'.join(lines)) as server:
        yield server


def stock(client: Client) -> None:
    for number in range(PAGE):
        messages = [{'body': f'{number}{LARGE}', 'ttl': 3600}]
        assert client.dialect.status(client.ask('message_post', queue_name='q', messages=messages))


def page_request(client: Client) -> bytes:
    return client.request('message_list', queue_name='q', echo=True, limit=PAGE)


def outbox_bytes(server: ServerProcess) -> float:
    """What waits to be sent, as the server says it has been within the last half second."""
    text = requests.get(f'{server.url}/metrics', timeout=30).text
    found = re.search(r'^zaqar_websocket_outbox_bytes (\S+)$', text, re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize('dialect', [DEFAULT, COMPACT], ids=str)
def test_a_client_that_never_reads_costs_little_delays_nobody_and_is_cut(
    stocked: ServerProcess, dialect: Dialect
) -> None:
    process = psutil.Process(stocked.pid)
    with Client(stocked.port, dialect, receive_buffer=4096) as client:
        stock(client)
        before = process.memory_info().rss
        asked = b''.join(page_request(client) for _ in range(60))
        client.send(asked)
        highest = waiting = 0.0
        with LightLoad(stocked.port) as rest:
            for _ in rest.seconds(3):
                highest = max(highest, process.memory_info().rss - before)
                waiting = max(waiting, outbox_bytes(stocked))
                time.sleep(0.05)
        assert rest.statuses == {204}
        assert rest.p99 < PROMPT
        answer_bytes = PAGE * len(LARGE)
        assert 0 < waiting < MIB + 17 * answer_bytes
        assert highest < 150 * MIB
        began = time.monotonic()
        while outbox_bytes(stocked) and time.monotonic() - began < SILENCE_SECONDS:
            time.sleep(0.1)
        assert outbox_bytes(stocked) == 0


def test_answers_in_flight_together_arrive_whole_each_once(stocked: ServerProcess) -> None:
    with Client(stocked.port, COMPACT, receive_buffer=64 * 1024) as client:
        stock(client)
        first = json.loads(json.dumps(client.ask('ping')))['id']
        asked = [page_request(client) for _ in range(10)]
        client.send(b''.join(asked))
        for _ in range(100):
            client.receive_some(8 * 1024)
            time.sleep(0.002)
        answers = [client.answer() for _ in asked]
        assert len({answer['id'] for answer in answers}) == len(asked)
        assert first not in {answer['id'] for answer in answers}
        for answer in answers:
            bodies = [message['body'] for message in answer['body']['messages']]
            assert bodies == [f'{number}{LARGE}' for number in range(PAGE)]
        assert client.lives()


def test_many_small_answers_to_a_client_that_never_reads_are_not_begun(
    stocked: ServerProcess,
) -> None:
    """The requests wait with the client, not in the server."""
    process = psutil.Process(stocked.pid)
    with Client(stocked.port, COMPACT, receive_buffer=4096) as client:
        before = process.memory_info().rss
        request = client.request('get_openapi')
        client.socket.settimeout(2)
        sent = 0
        try:
            while sent < 200 * MIB:
                client.send(request)
                sent += len(request)
        except TimeoutError:
            pass
        assert sent < 20 * MIB
        assert process.memory_info().rss - before < 60 * MIB
