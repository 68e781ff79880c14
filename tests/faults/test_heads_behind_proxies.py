"""Malformed heads through nginx and HAProxy, as the samples set them up.

A proxy and the server that disagree about where a request ends let one client speak for another.
So each head is refused by the one or the other, or mended by the proxy; and nothing is served that
the proxy has not taken for a request, by its own reading: it says in each whom it is from.
"""

from __future__ import annotations

import json
import pathlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import requests

from tests.faults.conftest import LOGGING
from tests.faults.gunicorn_process import GunicornProcess
from tests.faults.heads import MALFORMED, Malformed, Scene
from tests.faults.proxies import NAMES, Proxy
from tests.faults.test_heads import SECONDS, handshake, queues
from tests.functional.test_gunicorn import STOCK_WORKER
from tests.server_process import ServerProcess

CLIENT = '127.0.0.9'
QUIET_SECONDS = 1.0
AT_ONCE = 16

# What RFC 9112 lets a proxy understand, or a proxy just does, in one way only; it passes it on as
# it should have been. Another version may refuse it.
ENDS_OF_LINES = {
    'line that ends with LF',
    'LF before the line',
    'too many empty lines before the line',
    'LF for the end of a line',
    'LF for the end of all lines',
    'LF for the end of the head',
}
SPACES = {'two spaces before the target', 'two spaces before the version'}
MENDED = {
    'nginx': {
        *ENDS_OF_LINES,
        *SPACES,
        'space behind the version',
        'CR at the end of a value',
        # It says HTTP/1.1 to the server, whatever the client says.
        'version 1.10',
        'target of another scheme',
        # It leaves such lines out.
        'no colon',
        'byte over 127 in a name',
        'slash in a name',
        'bracket in a name',
        'quote in a name',
        'at sign in a name',
        # It passes on what it has read.
        'length of 400 digits',
    },
    'haproxy': {
        *ENDS_OF_LINES,
        *SPACES,
        'tabs for spaces',
        'version 2.0',
        # It makes one line of several.
        'only spaces',
        'folded by a space',
        'folded by a tab',
        'folded length',
        'folded coding',
        # It leaves out what says the same once more.
        'a host twice',
        'absolute target and two hosts',
        'a length twice',
        'list of lengths',
        # It leaves out the length, as RFC 9112 wants it, and closes the connection.
        'length and coding',
        'coding and length',
    },
}


class Outcome(NamedTuple):
    """What became of a malformed head.

    received: by the client. left: the queues of its project.
    """

    received: bytes
    left: list[str]


class Run(NamedTuple):
    """All outcomes behind one proxy.

    served: by project, from the server's access log: method, path and client of each request.
    metrics: the answers to requests for them.
    """

    proxy: str
    alone: dict[str, Outcome]
    handshakes: dict[str, Outcome]
    scenes: dict[str, tuple[Scene, Scene]]
    served: Mapping[str, list[tuple[str, str, str]]]
    metrics: list[bytes]


@pytest.fixture(scope='module', params=NAMES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Send every malformed head through a proxy, as a request and as a handshake."""
    directory: pathlib.Path = tmp_path_factory.mktemp(request.param)
    log = directory / 'access.log'
    config = (
        f'{LOGGING}[oslo_middleware]\nenable_proxy_headers_parsing = True\n'
        f'[drivers:transport:gevent]\naccess_log = {log}\n'
    )
    with ServerProcess(directory / 'server', config=config) as server:
        with Proxy(request.param, server.port, directory) as proxy:
            scenes = {name: (new_scene(server), new_scene(server)) for name in MALFORMED}
            alone = outcomes(server, proxy, [each[0] for each in scenes.values()], alone_of)
            others = outcomes(server, proxy, [each[1] for each in scenes.values()], handshake)
            metrics = [send(proxy, get(target)) for target in METRICS]
        assert server.stop() == 0
    assert 'Traceback' not in '\n'.join(server.output)
    yield Run(request.param, alone, others, scenes, served_of(log), metrics)


METRICS = ('/metrics', '/metrics?x', '/%6detrics', '/m%65trics')


def get(target: str) -> bytes:
    return f'GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode()


def alone_of(malformed: Malformed, scene: Scene) -> bytes:
    return scene.request(malformed)


def outcomes(
    server: ServerProcess,
    proxy: Proxy,
    scenes: Sequence[Scene],
    make: Callable[[Malformed, Scene], bytes],
) -> dict[str, Outcome]:
    """Of all malformed heads, several at a time."""

    def outcome(malformed: Malformed, scene: Scene) -> Outcome:
        received = send(proxy, make(malformed, scene))
        assert_in_step(proxy, scene)
        return Outcome(received, queues(server, scene.identity))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(outcome, MALFORMED.values(), scenes)
        return dict(zip(MALFORMED, found, strict=True))


def new_scene(server: ServerProcess) -> Scene:
    scene = Scene()
    url = server.url + scene.target
    created = requests.put(url, headers=scene.identity.headers(), timeout=SECONDS)
    assert created.status_code == 201
    return scene


def send(proxy: Proxy, data: bytes) -> bytes:
    """What is said until the connection ends, or nothing is said any more."""
    received = b''
    address = ('127.0.0.1', proxy.port)
    with socket.create_connection(address, QUIET_SECONDS, (CLIENT, 0)) as connection:
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                received += piece
        except OSError:
            pass
    return received


def assert_in_step(proxy: Proxy, scene: Scene) -> None:
    """Others who use the proxy's connections to the server get the answers to their requests."""
    for path, status in (('messages', 200), ('claims/none', 404), ('messages', 200)):
        got = requests.get(
            f'http://127.0.0.1:{proxy.port}/v2/queues/step/{path}',
            headers=scene.identity.headers(),
            timeout=SECONDS,
        )
        assert got.status_code == status
        assert got.json().get('messages', []) == []


def served_of(log: pathlib.Path) -> dict[str, list[tuple[str, str, str]]]:
    served: dict[str, list[tuple[str, str, str]]] = {}
    for line in log.read_text(encoding='utf-8').splitlines():
        entry = json.loads(line)
        request = (entry['method'], entry['path'], entry['remote'])
        served.setdefault(entry['project_id'], []).append(request)
    return served


@pytest.mark.parametrize('name', MALFORMED)
def test_a_malformed_head_is_refused_or_mended(run: Run, name: str) -> None:
    outcome = run.alone[name]
    if name in MENDED[run.proxy]:
        assert Scene.KEPT not in outcome.left or b'HTTP/1.1 2' not in outcome.received
    else:
        assert Scene.KEPT in outcome.left
        assert b' 204 ' not in outcome.received


@pytest.mark.parametrize('name', MALFORMED)
def test_nothing_is_served_that_the_proxy_has_not_seen(run: Run, name: str) -> None:
    """It may have found a second request behind the first, and then so has the server."""
    for scene, outcome in zip(
        run.scenes[name], (run.alone[name], run.handshakes[name]), strict=True
    ):
        posts = [each for each in run.served[scene.identity.project_id] if each[0] == 'POST']
        assert [each for each in posts if each[2] != CLIENT] == []
        assert (Scene.SMUGGLED in outcome.left) == bool(posts)
        assert len(posts) == outcome.received.count(b'HTTP/1.1 201 ')


def test_nearly_all_is_refused(run: Run) -> None:
    posted = [name for name, outcome in run.alone.items() if Scene.SMUGGLED in outcome.left]
    mended = [name for name, outcome in run.alone.items() if Scene.KEPT not in outcome.left]
    print(f'{run.proxy}: mended {len(mended)} {mended}; two requests {posted}')
    assert len(mended) < len(MALFORMED) / 5
    assert len(posted) < 10


def test_metrics_are_not_for_clients(run: Run) -> None:
    assert [answer.split(b' ', 2)[1] for answer in run.metrics] == [b'403'] * len(METRICS)


@pytest.fixture(scope='module')
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Whose reader of heads would take the next request for a body; see `zaqar_gevent.foreign`."""
    state = tmp_path_factory.mktemp('stock')
    with GunicornProcess(state, worker=STOCK_WORKER, config=LOGGING) as process:
        yield process


@pytest.mark.parametrize('upgrade', ['x', 'websocket'])
@pytest.mark.parametrize('name', NAMES)
def test_nobody_gets_into_anothers_request_by_a_body_of_an_upgrade(
    stock: ServerProcess, name: str, upgrade: str, tmp_path: pathlib.Path
) -> None:
    scene = Scene()
    said = ''.join(f'{name}: {value}\r\n' for name, value in scene.identity.headers().items())
    request = (
        f'PUT {scene.target} HTTP/1.1\r\nHost: localhost\r\n{said}Connection: Upgrade\r\n'
        f'Upgrade: {upgrade}\r\nContent-Length: 2\r\n\r\n{{}}'
    )
    with Proxy(name, stock.port, tmp_path) as proxy:
        for _ in range(3):
            send(proxy, request.encode())
            assert_in_step(proxy, scene)
