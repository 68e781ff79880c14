"""Servers that the tests of one module share, and clients of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.client import DIALECTS, Client, Dialect
from tests.server_process import ServerProcess
from zaqar_gevent.websocket.engines import ENGINES

Connect = Callable[..., Client]

LOGGING = '[DEFAULT]\nuse_stderr = True\n'


@pytest.fixture(scope='package', params=tuple(ENGINES))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with each engine, as it is unless told otherwise, which has nothing to complain of
    in the end."""
    config = f'{LOGGING}[drivers:transport:gevent]\nwebsocket_engine = {request.param}\n'
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process
        assert process.stop() == 0
    assert 'Traceback' not in '\n'.join(process.output)


@pytest.fixture(params=DIALECTS, ids=str)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Each way of writing requests."""
    dialect: Dialect = request.param
    return dialect


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Connect]:
    """Connects clients, which are gone after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **more: stack.enter_context(
            Client(server.port, *arguments, **more)
        )


@pytest.fixture
def client(connect: Connect, dialect: Dialect) -> Client:
    """A client of each dialect."""
    return connect(dialect)
