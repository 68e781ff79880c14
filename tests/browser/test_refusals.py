"""What the browser client says of a server that cannot be reached, in Node, which tells why."""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import Iterator

import pytest

from tests.browser.hosts import HERE, Node, running_node
from tests.certificate import write_certificate
from tests.ports import free_port
from tests.unit.client.gateway import Gateway
from tests.unit.client.scripted_server import ScriptedServer


@pytest.fixture(scope='module')
def node() -> Iterator[Node]:
    with running_node(HERE / 'refusals.mjs') as node:
        yield node


@pytest.fixture
def https(tmp_path: pathlib.Path) -> Iterator[str]:
    """The URL of a server whose certificate nobody else has signed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(write_certificate(tmp_path))
    with ScriptedServer(lambda connection, request: (200, {}), tls=context) as server:
        yield server.url


def test_it_says_why_a_certificate_is_refused(node: Node, https: str) -> None:
    for transport in ('auto', 'rest'):
        said = node.call('tell', https, {'transport': transport})
        assert 'self-signed certificate' in said['message'], transport
        assert said['name'] == 'ConnectionLost'


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_it_says_that_a_certificate_is_for_another_name(
    node: Node, https: str, transport: str
) -> None:
    said = node.call('tell', https.replace('127.0.0.1', 'localhost'), {'transport': transport})
    assert 'certificate' in said['message']


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_it_says_that_nobody_listens(node: Node, transport: str) -> None:
    port = free_port()
    said = node.call('tell', f'http://127.0.0.1:{port}', {'transport': transport})
    assert 'ECONNREFUSED' in said['message']


@pytest.mark.parametrize('transport', ['auto', 'rest'])
@pytest.mark.parametrize(('status', 'name'), [(200, 'NotZaqar'), (404, 'NotFound')])
def test_it_says_that_another_web_server_is_no_zaqar(
    node: Node, transport: str, status: int, name: str
) -> None:
    with Gateway() as gateway:
        gateway.answers, gateway.capabilities = [(status, b'<p>Hi')], (status, b'<p>Hi')
        said = node.call('tell', gateway.url, {'transport': transport})
    told = f'The server at {gateway.url} is no Zaqar: it answered {status}: <p>Hi'
    assert told in said['message']
    assert said['name'] == name


@pytest.mark.parametrize('transport', ['auto', 'rest'])
def test_it_says_that_a_name_is_not_known(node: Node, transport: str) -> None:
    said = node.call('tell', 'http://nowhere.invalid', {'transport': transport})
    assert 'nowhere.invalid' in said['message']
