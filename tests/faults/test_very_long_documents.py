"""Very long documents are checked beside the server, and others are served meanwhile."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import msgpack
import psutil
import pytest

from tests.callers import TRANSPORTS, CompactCaller, RestCaller, WebSocketCaller, connect
from tests.faults.light_load import LightLoad
from tests.server_process import ServerProcess
from zaqar_gevent import document_process, documents
from zaqar_gevent.conf import STORE_FILE
from zaqar_gevent.storage.sqlite.schema import FIRST_PIECE

SECONDS = 2.0
CONFIG = '[transport]\nmax_messages_post_size = 11000000\n'
MILLION = list(range(1_000_000))
WORDS = [{'id': number, 'name': f'n{number}', 'ok': True} for number in range(200_000)]
# Of the time that checking takes, what others wait for.
MOST = 0.8
LONG = 'snö ' * 200_000
# A page of these is short, and takes long to be converted.
RECORDS = [{'id': number, 'name': f'n{number}', 'ok': True} for number in range(5_500)]
PAGE = 20


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('long'), config=CONFIG) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


def checkers(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.pid).children()
    return [each for each in children if document_process.__name__ in each.cmdline()]


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


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_bodies_are_given_back_as_they_came(server: ServerProcess, transport: str) -> None:
    """Posted over one transport and read over all."""
    bodies = [LONG, 'short', {'in': [LONG, 2, None]}]
    messages = [{'ttl': 60, 'body': body} for body in bodies]
    poster = connect(transport, server.url, server.websocket_url)
    for more in ({}, {'unknown': True}):
        sent = [{**message, **more} for message in messages]
        posted = poster.call('message_post', queue_name='q', messages=sent)
        assert posted.status == 201, posted
        for other in TRANSPORTS:
            reader = connect(other, server.url, server.websocket_url)
            reader.identity = poster.identity
            many = {'queue_name': 'q', 'message_ids': posted.body['message_ids']}
            found = reader.call('message_get_many', **many)
            assert [one['body'] for one in found.body['messages']] == bodies
            reader.close()
    taken = poster.call('message_delete_many', queue_name='q', pop=3)
    assert [one['body'] for one in taken.body['messages']] == bodies
    claim = poster.call('claim_create', queue_name='q', ttl=60, grace=60, limit=3)
    assert [one['body'] for one in claim.body['messages']] == bodies
    poster.close()


@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize('ttl', [60, 'wrong'])
def test_a_request_is_echoed_whole(server: ServerProcess, ttl: object, binary: bool) -> None:
    caller = WebSocketCaller(server.websocket_url, binary=binary)
    request = {
        'action': 'message_post',
        'headers': caller.identity.headers(),
        'body': {'queue_name': 'q', 'messages': [{'ttl': ttl, 'body': LONG}]},
    }
    payload = msgpack.packb(request) if binary else json.dumps(request).encode()
    answer = caller.exchange(payload)
    caller.close()
    assert answer['headers']['status'] == (201 if ttl == 60 else 400)
    assert answer['request']['action'] == 'message_post'
    assert answer['request']['body'] == request['body']


@pytest.mark.parametrize('binary', [False, True])
def test_a_refused_document_is_answered_with_its_id(server: ServerProcess, binary: bool) -> None:
    caller = CompactCaller(server.websocket_url, binary=binary)
    messages = [{'ttl': 60, 'body': [LONG, 2**64 - 1]}]
    request = {'id': 'mine', 'action': 'message_post', 'body': {'messages': messages}}
    payload = msgpack.packb(request) if binary else json.dumps(request).encode()
    answer = caller.exchange(payload)
    caller.close()
    assert (answer['id'], answer['status']) == ('mine', 400)
    assert '2^63-1' in answer['body']['description']


def test_a_damaged_body_is_not_answered(server: ServerProcess) -> None:
    caller = RestCaller(server.url)
    for queue in ('damaged', 'whole'):
        messages = [{'ttl': 60, 'body': LONG}]
        assert caller.call('message_post', queue_name=queue, messages=messages).status == 201
    file = server.state_path / STORE_FILE
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:
        changed = connection.execute(
            f"""UPDATE body_pieces SET body = CAST(replace(body, 'sn', char(10)) AS BLOB)
            WHERE id IN (SELECT {FIRST_PIECE.format(body='-long_body')} FROM messages
                WHERE spool IN (SELECT id FROM spools WHERE name = 'damaged'))"""
        )
        assert changed.rowcount == 1
    for queue, status in (('damaged', 503), ('whole', 200)):
        assert caller.call('message_list', queue_name=queue, echo=True).status == status


def test_others_do_not_wait_for_a_page_in_the_other_encoding(server: ServerProcess) -> None:
    poster = CompactCaller(server.websocket_url, binary=False)
    reader = CompactCaller(server.websocket_url, binary=True)
    reader.identity = poster.identity
    for _ in range(PAGE):
        messages = [{'ttl': 300, 'body': RECORDS}]
        assert poster.call('message_post', queue_name='records', messages=messages).status == 201
    began = time.process_time()
    for _ in range(PAGE):
        documents.encode_msgpack(documents.decode_json(json.dumps(RECORDS)))
    each = time.process_time() - began
    with LightLoad(server.port) as others:
        for _ in others.seconds(SECONDS):
            page = reader.call('message_list', queue_name='records', echo=True, limit=PAGE)
            assert [one['body'] for one in page.body['messages']] == [RECORDS] * PAGE
    poster.close()
    reader.close()
    print(f'{each * 1000:.0f} ms to convert a page')
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
