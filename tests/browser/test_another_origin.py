"""A page of another origin than the server's: what it is told where it may not, and live messages.

The page does what README shows, in Chromium.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import time
from collections.abc import Iterator

import pytest

from tests.browser.files import ROOT, page_server
from tests.browser.hosts import HERE, Chromium, Page, running_chromium
from tests.client.commands import Shell
from tests.ports import free_port
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

OWN_CLIENT = 'zaqar_gevent/client/js/zaqar.js'
# It takes 3 s to be sure; a slow machine takes longer.
PATIENCE_SECONDS = 60


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


@pytest.fixture(scope='module')
def origin() -> Iterator[str]:
    with page_server() as origin:
        yield origin


@pytest.fixture
def page(browser: Chromium, origin: str) -> Iterator[Page]:
    with browser.page(f'{origin}/') as page:
        page.use(f'{origin}/{(HERE / "origins.mjs").relative_to(ROOT)}')
        yield page


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_page_shows_live_messages(page: Page, origin: str, tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path, '--allowed-origin', origin) as server:
        # The module comes from the server, as the page has none of its own.
        number = page.call('open', server.url, f'{server.url}/client/zaqar.js', {})
        assert page.call('seenIn', number, 'websocket', PATIENCE_SECONDS)['state'] == 'websocket'
        with Client(server.url, project='demo') as zaqar:
            zaqar.queue('news').post([1, 2, 3])
            assert page.call('bodiesOf', number, 3, PATIENCE_SECONDS) == [1, 2, 3]
        page.call('close', number)


def test_the_page_of_the_readme_shows_live_messages(
    browser: Chromium, port: int, tmp_path: pathlib.Path
) -> None:
    """As it stands there, but for the port: the server, the page, and the command that posts."""
    readme = (ROOT / 'README.md').read_text()
    [html] = re.findall(r'^```html\n(.*?)^```', readme, flags=re.MULTILINE | re.DOTALL)
    [posting] = re.findall(r"`zaqar-gevent (post\s+orders '[^`]*')`", readme)
    page_text = html.replace('127.0.0.1:8888', f'127.0.0.1:{port}').encode()
    with (
        page_server(b'<!doctype html><body>' + page_text) as origin,
        ServerProcess(tmp_path, '--port', str(port), '--allowed-origin', origin) as server,
        Shell(server.url, 'demo') as shell,
        browser.page(f'{origin}/page.html') as page,
    ):
        # What was posted before the page follows the queue is not shown.
        posted = 0
        until = time.monotonic() + PATIENCE_SECONDS
        while not (shown := page.evaluate('document.body.innerText').strip()):
            assert time.monotonic() < until
            shell.records(*shlex.split(posting))
            posted += 1
        assert set(shown.splitlines()) == {'{"sku":44}'}
        assert len(shown.splitlines()) <= posted


def test_a_page_is_told_that_its_origin_may_be_why_and_recovers(
    page: Page, origin: str, port: int, tmp_path: pathlib.Path
) -> None:
    states = {'auto': 'websocket', 'websocket': 'websocket', 'rest': 'polling'}
    with ServerProcess(tmp_path, '--port', str(port)) as server:
        module = f'{origin}/{OWN_CLIENT}'
        clients = {
            transport: page.call('open', server.url, module, {'transport': transport})
            for transport in states
        }
        for number in clients.values():
            told = page.call('post', number, 'lost')
            assert told['name'] == 'OriginRefused'
            assert told['origin'] == origin
            assert f'--allowed-origin {origin}' in told['message']
            assert 'allowed_origin in [cors]' in told['message']
            assert told['seconds'] < PATIENCE_SECONDS
            seen = page.call('seenIn', number, 'refused', PATIENCE_SECONDS)
            assert seen['states'] == [{'state': 'refused', 'reason': told['message']}]
            assert any(told['message'] in warning for warning in seen['warnings'])
            again = page.call('post', number, 'lost')
            assert again['name'] == 'OriginRefused'
            assert again['seconds'] < 10
        assert any(repr(origin) in line for line in server.output)
    # The operator does what the error says; the page need not be loaded again.
    with ServerProcess(tmp_path, '--port', str(port), '--allowed-origin', origin):
        for transport, number in clients.items():
            expected = states[transport]
            # One that polls tries WebSockets again after a minute.
            assert page.call('seenIn', number, expected, 150)['state'] == expected
        assert page.call('post', clients['auto'], 'found')['name'] == ''
        for number in clients.values():
            assert page.call('bodiesOf', number, 1, PATIENCE_SECONDS) == ['found']
            page.call('close', number)


def test_a_server_that_is_not_there_is_not_taken_for_one_that_refuses(
    page: Page, origin: str, port: int
) -> None:
    number = page.call('open', f'http://127.0.0.1:{port}', f'{origin}/{OWN_CLIENT}', {'timeout': 5})
    seen = page.call('seenIn', number, 'refused', 5)
    page.call('close', number)
    assert seen['state'] == 'connecting'
    assert seen['states'] == []


def test_the_module_cannot_be_imported_from_a_server_that_does_not_allow_the_page(
    page: Page, tmp_path: pathlib.Path
) -> None:
    with ServerProcess(tmp_path) as server:
        assert page.call('importError', f'{server.url}/client/zaqar.js') == 'TypeError'
