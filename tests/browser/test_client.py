"""The browser client in Node and in Chromium, against a real server, whatever is in the way.

In Chromium it runs in a page of another origin than the server's, which [cors] allows.
"""

from __future__ import annotations

import json
import pathlib
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.browser.files import ROOT, page_server
from tests.browser.hosts import HERE, Host, running_chromium, running_node
from tests.intermediaries import Intermediary
from tests.ports import free_port
from tests.server_process import ServerProcess

TRANSCRIPT = ROOT / 'tests' / 'client' / 'scenario.json'
SECRET = '[signed_url]\nsecret_key = a secret of the tests\n'
IN_THE_WAY = ('strip', 'swallow', 'cut', 'buffer', 'stall')
# After three seconds without a word a handshake is given up; on a busy machine more time passes
# until that shows. When exactly the client gives up is tested with a clock of the tests' own.
FALLBACK_SECONDS = 3.0 + 20.0
RETRY_SECONDS = 1.0
CUT_SECONDS = 0.5
BATCH = 25
PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope='module')
def origin() -> Iterator[str]:
    """That of the page, which the server allows."""
    with page_server() as origin:
        yield origin


@pytest.fixture(scope='module')
def server(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = f'[DEFAULT]\nadmin_mode = true\n{SECRET}[cors]\nallowed_origin = {origin}\n'
    with ServerProcess(tmp_path_factory.mktemp('server'), config=config) as process:
        yield process


@pytest.fixture(scope='module', params=['node', 'chromium'])
def host(
    request: pytest.FixtureRequest, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """Node, and a page, where clients are driven by the functions of `clients.mjs`."""
    module = HERE / 'clients.mjs'
    if request.param == 'node':
        with running_node(module) as node:
            yield node
        return
    with (
        running_chromium(tmp_path_factory.mktemp('profile')) as browser,
        browser.page(f'{origin}/') as page,
    ):
        page.use(f'{origin}/{module.relative_to(ROOT)}')
        yield page


@pytest.mark.parametrize('encoding', ['msgpack', 'json'])
@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_the_scenario_gives_the_transcript_of_all_clients(
    host: Host, server: ServerProcess, transport: str, encoding: str
) -> None:
    options = {'project': uuid.uuid4().hex, 'transport': transport, 'encoding': encoding}
    client = host.call('open', server.url, options)
    assert host.call('scenario', client) == json.loads(TRANSCRIPT.read_text())
    expected = {'websocket': 'websocket', 'rest': 'polling'}[transport]
    assert host.call('stateOf', client) == expected
    host.call('close', client)


class Barred:
    """A client behind a way that can be barred, and is at first."""

    def __init__(self, host: Host, server: ServerProcess, mode: str, stack: ExitStack) -> None:
        self.mode = mode
        self._host = host
        self._way = stack.enter_context(Intermediary(server.port, mode, seconds=CUT_SECONDS))
        options = {'project': uuid.uuid4().hex, 'retryInterval': RETRY_SECONDS}
        self.client: int = host.call('open', self._way.url, options)
        stack.callback(host.call, 'close', self.client)
        host.call('startTraffic', self.client, {'pause': PAUSE_SECONDS, 'batch': BATCH})

    def switch(self, *, is_free: bool) -> None:
        self._way.switch('open' if is_free else self.mode)
        # Node upgrades connections that it has made before.
        self._way.cut_all()

    def expects(self, *, is_free: bool) -> tuple[int, str, float]:
        """The state that the client comes to, and within how many seconds."""
        if is_free:
            return self.client, 'websocket', RETRY_SECONDS + 20.0
        # Connections that are cut have to be cut three times before it is noticed.
        cuts = 3 * CUT_SECONDS if self.mode == 'cut' else 0
        return self.client, 'polling', FALLBACK_SECONDS + cuts


def test_each_message_comes_once_and_in_order_whatever_is_in_the_way(
    host: Host, server: ServerProcess
) -> None:
    """The ways are barred, become free, are barred again and become free again, all at once."""
    with ExitStack() as stack:
        barred = [Barred(host, server, mode, stack) for mode in IN_THE_WAY]
        times = [host.call('secondsOfEach', [one.expects(is_free=False) for one in barred])]
        for is_free in (True, False, True):
            time.sleep(0.5)  # of traffic in this state
            for one in barred:
                one.switch(is_free=is_free)
            awaited = [one.expects(is_free=is_free) for one in barred]
            times.append(host.call('secondsOfEach', awaited))
        traffics = [host.call('finishTraffic', one.client, PATIENCE_SECONDS) for one in barred]
    for one, traffic, seconds in zip(barred, traffics, zip(*times, strict=True), strict=True):
        print(one.mode, f'{traffic["posted"]} messages', [f'{took:.2f} s' for took in seconds])
        assert traffic['posted'] > BATCH
        assert traffic['received'] == list(range(traffic['posted']))


def test_nothing_is_lost_or_doubled_when_the_server_is_killed(
    host: Host, origin: str, tmp_path: pathlib.Path
) -> None:
    port = str(free_port())
    config = f'[cors]\nallowed_origin = {origin}\n'
    with ServerProcess(tmp_path, '--port', port, config=config) as server:
        # Three connections that are lost are enough for REST.
        options = {'project': uuid.uuid4().hex, 'retryInterval': RETRY_SECONDS}
        client = host.call('open', server.url, options)
        host.call('startTraffic', client, {'pause': 0.01, 'batch': 1})
        for end in (server.kill, server.stop, server.kill):
            host.call('secondsOfEach', [(client, 'websocket', PATIENCE_SECONDS)])
            time.sleep(0.5)  # of traffic
            end()
            server.start()
        host.call('secondsOfEach', [(client, 'websocket', PATIENCE_SECONDS)])
        traffic = host.call('finishTraffic', client, PATIENCE_SECONDS)
        host.call('close', client)
    assert traffic['posted'] > 3
    assert traffic['received'] == list(range(traffic['posted']))
