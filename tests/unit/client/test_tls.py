"""Both transports over TLS, and that a certificate nobody vouches for is not believed."""

from __future__ import annotations

import pathlib
import ssl
import threading

import pytest

from tests.certificate import write_certificate
from tests.unit.client.scripted_server import ScriptedServer
from zaqar_gevent.client import Client, ConnectionLost


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_certificate(tmp_path_factory.mktemp('tls'))


@pytest.fixture
def server_context(certificate: pathlib.Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_websocket_over_tls_carries_requests_of_many_threads(
    certificate: pathlib.Path, server_context: ssl.SSLContext
) -> None:
    long = 'x' * 200_000
    tls = ssl.create_default_context(cafile=str(certificate))
    with (
        ScriptedServer(lambda _, request: (200, request['body']), tls=server_context) as server,
        Client(server.url, project='p', transport='websocket', encoding='json', tls=tls) as client,
    ):
        wrong = []

        def ask(number: int) -> None:
            for _ in range(20):
                body = client.call('queue_get', queue_name=f'{number}{long}')
                if body != {'queue_name': f'{number}{long}'}:
                    wrong.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert len(server.requests) == 1
        assert len(server.asked('queue_get')) == 160


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_certificate_that_nobody_vouches_for_is_not_believed(
    server_context: ssl.SSLContext, transport: str
) -> None:
    with (
        ScriptedServer(lambda *_: (200, {}), tls=server_context) as server,
        Client(server.url, project='p', transport=transport, timeout=2.0) as client,  # type: ignore[arg-type]
        pytest.raises(ConnectionLost, match='CERTIFICATE_VERIFY_FAILED'),
    ):
        client.call('queue_get', queue_name='q')
    assert server.requests == []
