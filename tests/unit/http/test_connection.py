"""What a connection of the HTTP server knows of its client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket

from zaqar_gevent import http
from zaqar_gevent.http.connection import CLIENT, HTTPConnection
from zaqar_gevent.sockets.received import Received
from zaqar_gevent.sockets.unsent import Unsent

REQUEST = b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
PATIENCE_SECONDS = 60.0


class Application:
    """Answers all requests; notes whether their client is gone."""

    timeouts = http.Timeouts(60, 60, 60)
    limits = http.Limits()

    def __init__(self) -> None:
        self.unsent = Unsent(1 << 20, 60.0)
        self.received = Received(1 << 20)
        self.connection: HTTPConnection | None = None
        self.gone: list[bool] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.connection = environ[CLIENT]
        self.gone.append(environ[CLIENT].is_gone())
        start_response('204 No Content', [])
        return []

    def drain(self) -> None:
        """There are no WebSockets."""

    def end_connections(self) -> None:
        """There are none."""


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def client(application: Application) -> Iterator[Any]:
    """A socket that is connected to a server of the application."""
    server = http.Server(('127.0.0.1', 0), application, spawn=10)
    server.start()
    with socket.create_connection(server.address, PATIENCE_SECONDS) as client:
        yield client
    server.stop(timeout=PATIENCE_SECONDS)


def ask(client: Any) -> bytes:
    client.sendall(REQUEST)
    return client.recv(1000)


def test_a_client_whose_request_comes_as_reading_stops_is_not_gone(
    application: Application, client: Any
) -> None:
    """Reading stops on the connections that wait for a request when the server drains, or needs
    their places. What has come until then is answered."""
    assert ask(client).startswith(b'HTTP/1.1 204')
    connection, deadline = application.connection, time.monotonic() + PATIENCE_SECONDS
    assert connection is not None
    while not connection.is_idle:
        assert time.monotonic() < deadline
        gevent.sleep(0.001)
    client.sendall(REQUEST)
    connection.stop_reading()
    answer = client.recv(1000)
    assert answer.startswith(b'HTTP/1.1 204')
    assert b'\r\nConnection: close\r\n' in answer
    assert application.gone == [False, False]
