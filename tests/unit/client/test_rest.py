"""REST where something is in the way: gateways, pages of others, and connections that die."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ports import free_port
from tests.unit.client.gateway import Gateway
from zaqar_gevent.client import (
    APIError,
    BodyTooLarge,
    Client,
    ConnectionLost,
    NotFound,
    NotImplementedThere,
    NotZaqar,
    OutcomeUnknown,
    ServiceUnavailable,
    Timeout,
    Unsupported,
    ZaqarError,
    aio,
)

PAGE = b'<!DOCTYPE html>\n<title>Welcome</title>\n\x1b[31m' + b'x' * 1000


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.url, project='demo', transport='rest', timeout=60) as client:
        yield client


@pytest.mark.parametrize('trouble', [(502, b'<h1>Bad gateway</h1>'), (504, b''), None])
def test_what_may_be_repeated_is_where_a_gateway_has_no_answer(
    gateway: Gateway, client: Client, trouble: tuple[int, bytes] | None
) -> None:
    gateway.answers = [trouble, (200, b'{"a": 1}')]
    assert client.queue('q').get_metadata() == {'a': 1}
    assert gateway.asked() == [('GET', '/v2/queues/q')] * 2


@pytest.mark.parametrize('trouble', [(502, b''), (504, b''), None])
def test_what_may_not_be_repeated_is_reported_as_unknown(
    gateway: Gateway, client: Client, trouble: tuple[int, bytes] | None
) -> None:
    gateway.answers = [trouble]
    with pytest.raises(OutcomeUnknown):
        client.queue('q').post('body')
    assert len(gateway.asked()) == 1


def test_a_page_that_is_not_of_the_server_is_an_error_nevertheless(
    gateway: Gateway, client: Client
) -> None:
    gateway.answers = [(503, b'<h1>Down for maintenance</h1>')]
    with pytest.raises(ServiceUnavailable) as error:
        client.queue('q').stats()
    assert error.value.description == '<h1>Down for maintenance</h1>'
    gateway.answers = [(418, b'{"title": "Teapot"}')]
    with pytest.raises(APIError) as other:
        client.queue('q').stats()
    assert (other.value.status, other.value.code, other.value.title) == (418, 'error', 'Teapot')


Ask = Callable[..., None]


def ask_blocking(url: str, **options: Any) -> None:
    with Client(url, project='demo', **options) as client:
        client.queue('q').claim()


def ask_asyncio(url: str, **options: Any) -> None:
    async def ask() -> None:
        async with aio.Client(url, project='demo', **options) as client:
            await client.queue('q').claim()

    asyncio.run(ask())


of_both = pytest.mark.parametrize('ask', [ask_blocking, ask_asyncio])


@of_both
@pytest.mark.parametrize('transport', ['auto', 'rest'])
@pytest.mark.parametrize(
    ('status', 'content', 'kind'),
    [
        (200, PAGE, NotZaqar),
        (200, b'["hello"]', NotZaqar),
        (302, b'', NotZaqar),
        (404, PAGE, NotFound),
        (501, PAGE, NotImplementedThere),
    ],
)
def test_another_web_server_is_no_zaqar(
    gateway: Gateway,
    ask: Ask,
    transport: str,
    status: int,
    content: bytes,
    kind: type[Exception],
) -> None:
    gateway.answers, gateway.capabilities = [(status, content)], (status, content)
    with pytest.raises(kind) as told:
        ask(gateway.url, transport=transport)
    text = str(told.value)
    assert f'The server at {gateway.url} is no Zaqar: it answered {status}' in text
    assert '<!DOCTYPE html> <title>Welcome</title> ?[31mxxx' in text or content != PAGE
    assert text.isprintable()
    assert len(text) < 300


@of_both
def test_a_gateway_before_a_zaqar_may_refuse_in_its_own_words(gateway: Gateway, ask: Ask) -> None:
    gateway.answers = [(413, PAGE)]
    with pytest.raises(BodyTooLarge, match='<title>Welcome') as told:
        ask(gateway.url, transport='rest')
    assert 'no Zaqar' not in str(told.value)


@of_both
def test_a_server_that_ends_connections_may_be_no_zaqar(gateway: Gateway, ask: Ask) -> None:
    gateway.answers = [None]
    said = f'The server at {gateway.url} ended the connection without an answer.*may be no Zaqar'
    with pytest.raises(OutcomeUnknown, match=said):
        ask(gateway.url, transport='rest')


@of_both
def test_a_server_that_does_not_speak_http_is_no_zaqar(ask: Ask) -> None:
    def greet() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b'SSH-2.0-OpenSSH_9.9\r\n\r\n')
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    with socket.create_server(('127.0.0.1', 0)) as listener:
        url = f'http://127.0.0.1:{listener.getsockname()[1]}'
        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(NotZaqar, match=f'{url} is no Zaqar: it does not.*HTTP.*SSH-2.0'):
            ask(url, transport='rest')
        thread.join()


@of_both
def test_a_server_that_is_away_is_a_lost_connection_to_its_url(ask: Ask) -> None:
    url = f'http://127.0.0.1:{free_port()}'
    with pytest.raises(ConnectionLost, match=f'{url} cannot be reached: .Errno') as told:
        ask(url.replace('//', '//user:secret@'), transport='rest', timeout=0.2)
    assert type(told.value) is ConnectionLost


def test_an_answer_that_does_not_come_is_a_timeout(gateway: Gateway, client: Client) -> None:
    gateway.answers = [(200, b'{}')]
    gateway.may_answer.clear()
    client.timeout = 0.3
    with pytest.raises(Timeout):
        client.queue('q').get_metadata()


def test_an_answer_that_is_too_long_is_not_read(gateway: Gateway) -> None:
    gateway.answers = [(200, b'"' + b'x' * 3000 + b'"')]
    with (
        Client(gateway.url, project='p', transport='rest', max_message_size=2000) as client,
        pytest.raises(ZaqarError, match='2000'),
    ):
        client.queue('q').get_metadata()


def test_names_cannot_lead_elsewhere(gateway: Gateway, client: Client) -> None:
    gateway.answers = [(200, b'{}')]
    client.queue('../pools?x=1#y').get_metadata()
    assert gateway.asked() == [('GET', '/v2/queues/..%2Fpools%3Fx%3D1%23y')]


def test_what_rest_does_not_have_is_unsupported(client: Client) -> None:
    with pytest.raises(Unsupported):
        client.call('queue_consume', queue_name='q')


def test_a_server_behind_a_path_is_found_there(gateway: Gateway) -> None:
    gateway.answers = [(200, b'{}')]
    with Client(f'{gateway.url}/messaging/v2/', project='p', transport='rest') as client:
        client.queue('q').get_metadata()
    assert gateway.asked() == [('GET', '/messaging/v2/queues/q')]
