"""What was acknowledged is there after a crash."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time

import pytest
import requests
import websocket

from tests.callers import RestCaller, WebSocketCaller, new_identity
from tests.server_process import ServerProcess

LOST_CONNECTION = (OSError, websocket.WebSocketException, requests.RequestException)
PRODUCERS = 8


@pytest.mark.parametrize('kills', [3])
def test_acknowledged_messages_survive_kill_9(tmp_path: pathlib.Path, kills: int) -> None:
    identity = new_identity()
    acknowledged: list[str] = []

    def produce(url: str, binary: bool) -> None:
        try:
            caller = WebSocketCaller(url, binary=binary, identity=identity)
            for number in itertools.count():
                messages = [{'body': number, 'ttl': 3600}]
                answer = caller.call('message_post', queue_name='orders', messages=messages)
                assert answer.status == 201
                acknowledged.extend(answer.body['message_ids'])
        except LOST_CONNECTION:
            return

    for _ in range(kills):
        server = ServerProcess(tmp_path)
        server.start()
        before = len(acknowledged)
        producers = [
            threading.Thread(target=produce, args=(server.websocket_url, bool(number % 2)))
            for number in range(PRODUCERS)
        ]
        for producer in producers:
            producer.start()
        while len(acknowledged) < before + 200:
            time.sleep(0.01)
        server.kill()
        for producer in producers:
            producer.join()

    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url, identity=identity)
        stored = list(_all_ids(caller))
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(acknowledged) >= kills * 200


def _all_ids(caller: RestCaller) -> list[str]:
    found: list[str] = []
    marker: dict[str, str] = {}
    while True:
        page = caller.call('message_list', queue_name='orders', echo=True, limit=20, **marker).body
        if not page['messages']:
            return found
        found += [message['id'] for message in page['messages']]
        marker = {'marker': page['marker']}
