"""Fixtures shared by the tests of the clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.client.commands import Shell
from tests.server_process import ServerProcess


@pytest.fixture
def shell(server: ServerProcess) -> Iterator[Shell]:
    """Where commands are run that speak to the shared server, in a project of their own."""
    with Shell(server.url, uuid.uuid4().hex) as shell:
        yield shell
