"""The console's files, as a server of each kind serves them."""

from __future__ import annotations

import http.client
import pathlib
import re
from collections.abc import Iterator

import pytest
import requests

from tests.functional.test_authentication import POLICY, IdentityService, configuration
from tests.functional.test_gunicorn import OUR_WORKER, STOCK_WORKER, gunicorn
from tests.functional.test_observability import Difference
from tests.server_process import ServerProcess

STATIC = pathlib.Path(__file__).parents[2] / 'zaqar_gevent' / 'console' / 'static'
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob('*.*'))
POLICY_OF_THE_PAGE = {
    'default-src': "'none'",
    'script-src': "'self'",
    'style-src': "'self'",
    'img-src': "'self'",
    'connect-src': "'self'",
    'base-uri': "'none'",
    'form-action': "'none'",
    'frame-ancestors': "'none'",
}


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp('console')) as process:
        yield process


@pytest.fixture(scope='module', params=['command', 'ours', 'stock'])
def url(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of a server: of the command, and of gunicorn with each worker that upgrades."""
    if request.param == 'command':
        yield server.url
    else:
        worker = OUR_WORKER if request.param == 'ours' else STOCK_WORKER
        with gunicorn(worker, tmp_path_factory.mktemp('gunicorn')) as address:
            yield f'http://{address}'


def raw_status(url: str, path: str, method: str = 'GET') -> tuple[int, bytes]:
    """What a path is answered with that no client library has made tidy."""
    connection = http.client.HTTPConnection(url.removeprefix('http://'), timeout=60)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader('Content-Length', '0')
    connection.endheaders()
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, body


def test_every_file_is_served_as_it_is(url: str) -> None:
    assert 'index.html' in FILES
    for name in FILES:
        answer = requests.get(f'{url}/console/{name}', timeout=60)
        assert answer.status_code == 200
        assert answer.content == (STATIC / name).read_bytes()
        assert answer.headers['X-Content-Type-Options'] == 'nosniff'


def test_the_page_is_at_console_and_needs_no_name(url: str) -> None:
    page = requests.get(f'{url}/console', timeout=60)
    assert page.url == f'{url}/console/'
    assert [moved.status_code for moved in page.history] == [308]
    assert page.headers['Content-Type'] == 'text/html; charset=utf-8'
    assert page.content == (STATIC / 'index.html').read_bytes()


def test_the_browser_client_is_beside_the_page(url: str) -> None:
    script = requests.get(f'{url}/console/zaqar.js', timeout=60)
    assert script.headers['Content-Type'] == 'text/javascript; charset=utf-8'
    assert 'class Client extends EventTarget' in script.text


def test_the_policy_of_the_page_allows_nothing_from_elsewhere_and_nothing_inline(url: str) -> None:
    for path in ('', 'zaqar.js', 'nothing'):
        answer = requests.get(f'{url}/console/{path}', timeout=60)
        rules = answer.headers['Content-Security-Policy'].split('; ')
        assert dict(rule.split(' ', 1) for rule in rules) == POLICY_OF_THE_PAGE


def test_the_page_holds_no_script_and_no_style() -> None:
    page = (STATIC / 'index.html').read_text()
    assert re.findall(r'<script[^>]*>(?!</script>)', page) == []
    assert re.findall(r'<style|\sstyle=|\son[a-z]+=|https?://', page) == []


def test_scripts_make_no_markup_and_no_code_of_texts() -> None:
    ways = r'\b(innerHTML|outerHTML|insertAdjacentHTML|write|DOMParser|srcdoc|eval|Function)\b'
    elsewhere = r"from '(?!\./|\.\./)|import\(|https?://(?!www\.w3\.org/2000/svg|example\.com)"
    scripts = [name for name in FILES if name.endswith('.js')]
    assert len(scripts) > 10
    for name in scripts:
        text = (STATIC / name).read_text()
        assert re.findall(ways, text) == [], name
        assert re.findall(elsewhere, text) == [], name


def test_a_browser_that_has_a_file_is_not_sent_it_again(url: str) -> None:
    first = requests.get(f'{url}/console/main.js', timeout=60)
    assert first.headers['Cache-Control'] == 'no-cache'
    for tags in (first.headers['ETag'], f'"another", W/{first.headers["ETag"]}', '*'):
        again = requests.get(f'{url}/console/main.js', headers={'If-None-Match': tags}, timeout=60)
        assert (again.status_code, again.content) == (304, b'')
        assert again.headers['ETag'] == first.headers['ETag']
    changed = requests.get(
        f'{url}/console/main.js', headers={'If-None-Match': '"another"'}, timeout=60
    )
    assert changed.status_code == 200


def test_head_is_get_without_a_body(url: str) -> None:
    got = requests.get(f'{url}/console/main.js', timeout=60)
    head = requests.head(f'{url}/console/main.js', timeout=60)
    assert head.status_code == 200
    assert head.content == b''
    for name in ('Content-Length', 'Content-Type', 'ETag'):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize('method', ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
def test_files_can_only_be_read(url: str, method: str) -> None:
    for path in ('', 'main.js', 'nothing'):
        answer = requests.request(method, f'{url}/console/{path}', timeout=60)
        assert answer.status_code == 405
        assert answer.headers['Allow'] == 'GET, HEAD'


@pytest.mark.parametrize(
    'path',
    [
        '/console/nothing',
        '/console/views',
        '/console/views/',
        '/console//main.js',
        '/console/../console/main.js',
        '/console/../serving.py',
        '/console/..%2fserving.py',
        '/console/%2e%2e/serving.py',
        '/console/%2e%2e%2f%2e%2e%2fserver.py',
        '/console/..\\serving.py',
        '/console//etc/passwd',
        '/console/%00',
        '/console/main.js%00.html',
        '/console/%ff%fe',
    ],
)
def test_nothing_but_the_files_can_be_reached(url: str, path: str) -> None:
    status, body = raw_status(url, path)
    assert status == 404
    assert b'import' not in body


def test_what_only_begins_like_the_console_is_not_the_consoles(url: str) -> None:
    answer = requests.get(f'{url}/consoles', timeout=60)
    assert answer.status_code == 404
    assert 'Content-Security-Policy' not in answer.headers


def test_files_are_no_requests_of_zaqar(server: ServerProcess) -> None:
    difference = Difference(server.url)
    for path in ('', 'main.js', 'nothing'):
        requests.get(f'{server.url}/console/{path}', timeout=60)
    assert difference.of('requests_total', operation='none', transport='rest', status=200) == 0
    assert difference.of('requests_total', operation='none', transport='rest', status=404) == 0


def test_files_need_no_token_and_data_does(tmp_path: pathlib.Path) -> None:
    policy = tmp_path / 'policy.yaml'
    policy.write_text(POLICY)
    with (
        IdentityService() as service,
        ServerProcess(tmp_path, config=configuration(service, policy)) as guarded,
    ):
        assert requests.get(f'{guarded.url}/console/', timeout=60).status_code == 200
        headers = {'Client-ID': '3381af92-2b9e-11e3-b191-71861300734c', 'X-Project-ID': 'demo'}
        queues = requests.get(f'{guarded.url}/v2/queues', headers=headers, timeout=60)
        assert queues.status_code == 401


def test_an_option_switches_it_off(tmp_path: pathlib.Path) -> None:
    config = '[drivers:transport:gevent]\nconsole = false\n'
    with ServerProcess(tmp_path, config=config) as server:
        for path in ('/console', '/console/', '/console/main.js'):
            answer = requests.get(f'{server.url}{path}', timeout=60)
            assert answer.status_code == 404
            assert 'Content-Security-Policy' not in answer.headers
