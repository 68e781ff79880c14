"""Very long documents are checked beside the server, and others are served meanwhile."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator

import msgpack
import psutil
import pytest

from tests.callers import CompactCaller, RestCaller, WebSocketCaller
from tests.faults.light_load import LightLoad
from tests.server_process import ServerProcess
from zaqar_gevent import document_checker, documents

SECONDS = 3.0
CONFIG = '[transport]\nmax_messages_post_size = 11000000\n'
MILLION = list(range(1_000_000))
WORDS = [{'id': number, 'name': f'n{number}', 'ok': True} for number in range(200_000)]
# Of the time that checking takes, what others wait for.
MOST = 0.8


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('long'), config=CONFIG) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


def checkers(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.pid).children()
    return [each for each in children if document_checker.__name__ in each.cmdline()]


@pytest.mark.parametrize('kind', ['MsgPack', 'JSON'])
def test_others_do_not_wait_for_the_check(server: ServerProcess, kind: str) -> None:
    if kind == 'MsgPack':
        caller: WebSocketCaller = CompactCaller(server.websocket_url, binary=True)
        messages = [{'ttl': 60, 'body': MILLION}]
        check, document = documents.check_msgpack, msgpack.packb(messages)
    else:
        caller = WebSocketCaller(server.websocket_url, binary=False)
        messages = [{'ttl': 60, 'body': WORDS}]
        check, document = documents.check_json, json.dumps(messages).encode()
    began = time.process_time()
    check(document)
    each = time.process_time() - began
    # The first one starts the process.
    assert caller.call('message_post', queue_name='q', messages=messages).status == 201
    count = 0
    with LightLoad(server.port) as others:
        for _ in others.seconds(SECONDS):
            assert caller.call('message_post', queue_name='q', messages=messages).status == 201
            count += 1
    caller.close()
    print(f'{count} posts, {each * 1000:.0f} ms each to check')
    assert len(checkers(server)) == 1
    assert others.p99 < MOST * each


def test_what_is_wrong_is_told_as_ever(server: ServerProcess) -> None:
    caller = RestCaller(server.url)
    answers = []
    for filling in ('x' * 20, 'x' * 2_000_000):
        messages = [{'ttl': 60, 'body': filling, 'more': 1 << 70}]
        answers.append(caller.call('message_post', queue_name='q', messages=messages))
    assert [answer.status for answer in answers] == [400, 400]
    short, long = (answer.body for answer in answers)
    assert short == long
    assert '2^63-1' in short['description']


def test_a_checker_that_dies_is_replaced(server: ServerProcess, tmp_path: pathlib.Path) -> None:
    caller = RestCaller(server.url)
    messages = [{'ttl': 60, 'body': 'x' * 2_000_000}]
    assert caller.call('message_post', queue_name='q', messages=messages).status == 201
    [first] = checkers(server)
    os.kill(first.pid, signal.SIGKILL)
    for _ in range(2):
        assert caller.call('message_post', queue_name='q', messages=messages).status == 201
    [second] = checkers(server)
    assert second.pid != first.pid
    assert not psutil.pid_exists(first.pid)


def test_it_ends_with_the_server(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path, config=CONFIG) as server:
        messages = [{'ttl': 60, 'body': 'x' * 2_000_000}]
        posted = RestCaller(server.url).call('message_post', queue_name='q', messages=messages)
        assert posted.status == 201
        [checker] = checkers(server)
        server.kill()
        checker.wait(60)
