"""TLS that gunicorn ends itself."""

from __future__ import annotations

import pathlib
import ssl
from typing import Any

import pytest
import requests
import websocket

from tests.callers import WebSocketCaller, new_identity
from tests.certificate import write_certificate
from tests.functional.test_gunicorn import OUR_WORKER, STOCK_WORKER, gunicorn


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_certificate(tmp_path_factory.mktemp('tls'))


@pytest.mark.parametrize('worker', [OUR_WORKER, STOCK_WORKER], ids=['ours', 'stock'])
def test_both_transports_work_over_tls(
    certificate: pathlib.Path, tmp_path: pathlib.Path, worker: str
) -> None:
    options = ('--certfile', str(certificate), '--keyfile', str(certificate))
    with gunicorn(worker, tmp_path, options=options) as address:
        identity = new_identity()
        url = f'https://{address}/v2/queues/q'
        headers = identity.headers()
        created = requests.put(url, headers=headers, verify=str(certificate), timeout=60)
        assert created.status_code == 201
        caller = connect(address, certificate, identity)
        large = 'x' * 200_000
        for number in range(3):
            posted = caller.call('message_post', queue_name='q', messages=[{'body': large}])
            assert posted.status == 201, number
        listed = caller.call('message_list', queue_name='q', echo=True)
        assert [message['body'] for message in listed.body['messages']] == [large] * 3
        caller.socket.close(status=1000)


def test_a_connection_over_tls_is_let_go_when_the_server_stops(
    certificate: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    options = ('--certfile', str(certificate), '--keyfile', str(certificate))
    with gunicorn(OUR_WORKER, tmp_path, options=options) as address:
        caller = connect(address, certificate, new_identity())
        assert caller.call('ping_node').status == 204
    opcode, payload = caller.socket.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert int.from_bytes(payload[:2]) == 1001


def connect(address: str, certificate: pathlib.Path, identity: Any) -> WebSocketCaller:
    return WebSocketCaller(
        f'wss://{address}/v2/ws',
        binary=False,
        identity=identity,
        sslopt={'ca_certs': str(certificate), 'cert_reqs': ssl.CERT_REQUIRED},
    )
