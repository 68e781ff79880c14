"""Fixtures of the tests of the console."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.browser.another_client import AnotherClient
from tests.browser.console_page import ConsolePage, WatchedChromium
from tests.browser.hosts import running_chromium
from tests.server_process import ServerProcess


@pytest.fixture(scope='session')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedChromium]:
    with running_chromium(tmp_path_factory.mktemp('profile')) as chromium:
        yield WatchedChromium(chromium)


@pytest.fixture
def page(browser: WatchedChromium, server: ServerProcess) -> Iterator[ConsolePage]:
    """A page that nobody has used, in a project that nobody else uses."""
    with browser.console(server.url, uuid.uuid4().hex) as page:
        yield page
        assert page.complaints == []


@pytest.fixture
def other(page: ConsolePage) -> AnotherClient:
    """Another client of the page's project."""
    return AnotherClient(page.url, page.project)
