"""What lets upstream's WebSocket tests run here unmodified.

They drive upstream's autobahn objects: a factory, and protocols with `onMessage` and `sendMessage`.
`Protocol` is such an object around a session of ours.
"""

from __future__ import annotations

import configparser
import pathlib
from typing import Any

import pytest
from zaqar.tests.unit.transport.websocket import base as websocket_base
from zaqar.tests.unit.transport.websocket.v2 import test_queue_lifecycle

from tests.compat import impossible
from zaqar_gevent.server import TransportDriver
from zaqar_gevent.websocket.session import DefaultSession, Retractable

CONFIGURATIONS = (
    'websocket_mongodb.conf',
    'websocket_mongodb_subscriptions.conf',
    'websocket_mongodb_keystone_auth.conf',
)


class Protocol:
    """A session as upstream's tests want a protocol."""

    def __init__(self, session: DefaultSession) -> None:
        self._session = session

    def onMessage(self, payload: bytes | str, is_binary: bool) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        answer = self._session.receive(data, binary=is_binary)
        payload = answer.payload if isinstance(answer, Retractable) else answer
        self.sendMessage(payload, is_binary)

    def sendMessage(self, payload: bytes, is_binary: bool) -> None:
        """Replaced by the tests."""


@pytest.fixture(autouse=True)
def _autobahn(
    _configuration_files: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the driver upstream's factory, and the tests their configuration files."""
    parser = configparser.ConfigParser()
    parser.read(tmp_path / 'wsgi_mongodb.conf')
    for name in CONFIGURATIONS:
        with (tmp_path / name).open('w') as file:
            parser.write(file)
    # It drops MongoDB databases; here every test has a file that goes with its directory.
    monkeypatch.setattr(
        test_queue_lifecycle.TestQueueLifecycleMongoDB, 'tearDown', websocket_base.V2Base.tearDown
    )
    monkeypatch.setattr(TransportDriver, 'factory', _new_protocol, raising=False)


def _new_protocol(driver: Any) -> Protocol:
    return Protocol(driver.session_factory())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    impossible.expect_failures(items, pathlib.Path(__file__).parent)
