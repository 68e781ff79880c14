"""The application under gunicorn, with workers that can upgrade and one that cannot."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import pytest
import requests
import websocket

from tests.callers import TRANSPORTS, RestCaller, connect
from tests.server_process import START_SECONDS, start_process

OUR_WORKER = 'zaqar_gevent.gunicorn.Worker'
STOCK_WORKER = 'geventwebsocket.gunicorn.workers.GeventWebSocketWorker'


@contextmanager
def gunicorn(
    worker: str, state: pathlib.Path, workers: int = 1, options: Sequence[str] = ()
) -> Iterator[str]:
    """gunicorn on a free port, once a worker answers; gives its address."""
    command = [
        *(sys.executable, '-m', 'gunicorn', '-k', worker, '-w', str(workers)),
        *('-b', '127.0.0.1:0', '--no-control-socket', '--graceful-timeout', '1'),
        *options,
        'zaqar_gevent.wsgi:app',
    ]
    env = {**os.environ, 'XDG_STATE_HOME': str(state), 'HOME': str(state)}
    process = start_process(command, env)
    try:
        scheme, address = _address(process)
        with suppress(ssl.SSLError):
            _wait_for_a_worker(scheme, address)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _wait_for_a_worker(scheme: str, address: str) -> None:
    """Gunicorn listens before its workers have started."""
    insecure = ssl._create_unverified_context()
    connection = (
        http.client.HTTPSConnection(address, timeout=START_SECONDS, context=insecure)
        if scheme == 'https'
        else http.client.HTTPConnection(address, timeout=START_SECONDS)
    )
    with closing(connection):
        connection.request('GET', '/healthcheck')
        connection.getresponse().read()


def _address(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The scheme and the address in gunicorn's log, which is read on in the background."""
    assert process.stdout is not None
    for line in process.stdout:
        match = re.search(r'Listening at: (https?)://(\S+)', line)
        if match:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return match[1], match[2]
    raise AssertionError('gunicorn did not start')


@pytest.fixture(scope='module', params=[OUR_WORKER, STOCK_WORKER], ids=['ours', 'stock'])
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with gunicorn(request.param, tmp_path_factory.mktemp('gunicorn')) as address:
        yield address


@pytest.fixture(scope='module')
def stock_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gunicorn(STOCK_WORKER, tmp_path_factory.mktemp('gunicorn')) as address:
        yield address


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_every_transport_works_under_either_worker(address: str, transport: str) -> None:
    caller = connect(transport, f'http://{address}', f'ws://{address}/v2/ws')
    posted = caller.call('message_post', queue_name='orders', messages=[{'body': {'sku': 42}}])
    assert posted.status == 201
    claim = caller.call('claim_create', queue_name='orders')
    [message] = claim.body['messages']
    assert message['body'] == {'sku': 42}
    deleted = caller.call(
        'message_delete',
        queue_name='orders',
        message_id=message['id'],
        claim_id=claim.body['claim_id'],
    )
    assert deleted.status == 204
    caller.close()


def test_a_websocket_elsewhere_is_closed_with_a_reason_under_the_stock_worker(
    stock_address: str,
) -> None:
    client = websocket.create_connection(f'ws://{stock_address}/v2/queues', timeout=60)
    opcode, payload = client.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert payload[:2] == (1008).to_bytes(2)
    assert b'/v2/ws' in payload


def test_a_worker_that_cannot_upgrade_serves_rest_and_says_which_can(
    tmp_path: pathlib.Path,
) -> None:
    with gunicorn('sync', tmp_path) as address:
        caller = RestCaller(f'http://{address}')
        assert caller.call('ping_node').status == 204
        upgrade = {
            'Connection': 'Upgrade',
            'Upgrade': 'websocket',
            'Sec-WebSocket-Version': '13',
            'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
        }
        refused = requests.get(f'http://{address}/v2/ws', headers=upgrade, timeout=60)
        assert refused.status_code == 501
        assert OUR_WORKER in refused.json()['description']


def test_two_workers_share_one_store(tmp_path: pathlib.Path) -> None:
    with gunicorn(OUR_WORKER, tmp_path, workers=2) as address:
        identity = RestCaller(f'http://{address}').identity
        for number in range(20):
            caller = RestCaller(f'http://{address}', identity=identity)
            messages = [{'body': number}]
            assert caller.call('message_post', queue_name='q', messages=messages).status == 201
            listed = caller.call('message_list', queue_name='q', echo=True, limit=20).body
            assert [message['body'] for message in listed['messages']] == list(range(number + 1))
            caller.close()


@pytest.mark.parametrize('worker', [OUR_WORKER, STOCK_WORKER, 'sync'])
@pytest.mark.parametrize('workers', [1, 2])
def test_after_a_stop_the_file_alone_holds_everything(
    tmp_path: pathlib.Path, worker: str, workers: int
) -> None:
    # Longer than a worker takes to see that it is to stop: after it gunicorn kills.
    patient = ('--graceful-timeout', '15')
    with gunicorn(worker, tmp_path, workers=workers, options=patient) as address:
        callers = [RestCaller(f'http://{address}') for _ in range(8)]
        for number, caller in enumerate(callers):
            posted = caller.call('message_post', queue_name='q', messages=[{'body': number}])
            assert posted.status == 201
            caller.close()
    [store] = tmp_path.rglob('zaqar.sqlite')
    alone = tmp_path / 'alone.sqlite'
    shutil.copy(store, alone)
    with contextlib.closing(sqlite3.connect(alone)) as copy:
        bodies = copy.execute('SELECT body FROM messages ORDER BY id').fetchall()
    assert bodies == [(str(number).encode(),) for number in range(8)]


def test_what_is_loaded_is_spared_the_garbage_collector(tmp_path: pathlib.Path) -> None:
    program = 'import gc, zaqar_gevent.wsgi; print(gc.get_freeze_count(), len(gc.get_objects()))'
    env = {**os.environ, 'XDG_STATE_HOME': str(tmp_path), 'HOME': str(tmp_path)}
    output = subprocess.check_output([sys.executable, '-c', program], env=env, text=True)
    spared, looked_at = map(int, output.split())
    assert spared > 20 * looked_at
