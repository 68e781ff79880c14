"""The application below a path of a server that has others beside it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import requests
import websocket

from tests.callers import new_identity
from tests.faults.gunicorn_process import GunicornProcess
from tests.functional.test_gunicorn import OUR_WORKER, STOCK_WORKER
from tests.server_process import ServerProcess
from zaqar_gevent.client import Client

PREFIX = '/messaging'
QUICK = ('--graceful-timeout', '1')
BEHIND_PROXY = '[oslo_middleware]\nenable_proxy_headers_parsing = True\n'


class Mounted(NamedTuple):
    """A server, and how it is reached below the prefix.

    path: what stands before the paths of requests. headers: of each request.
    """

    name: str
    process: ServerProcess
    path: str
    headers: dict[str, str]

    @property
    def url(self) -> str:
        return self.process.url + self.path

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {**self.headers, **IDENTITY.headers()}
        return requests.request(
            method, self.url + path, headers=headers, timeout=60, allow_redirects=False, **more
        )


IDENTITY = new_identity()


def by_environment(worker: str) -> Callable[[pathlib.Path], Mounted]:
    def make(state: pathlib.Path) -> Mounted:
        process = GunicornProcess(state, *QUICK, worker=worker, env={'SCRIPT_NAME': PREFIX})
        return Mounted(worker, process, PREFIX, {})

    return make


def by_proxy(state: pathlib.Path) -> Mounted:
    """A proxy has taken the prefix away, and says so."""
    process = ServerProcess(state, config=BEHIND_PROXY)
    return Mounted('proxy', process, '', {'X-Forwarded-Prefix': PREFIX})


MADE = {
    'worker': by_environment(OUR_WORKER),
    'stock': by_environment(STOCK_WORKER),
    'sync': by_environment('sync'),
    'proxy': by_proxy,
}


@pytest.fixture(scope='module', params=MADE)
def mounted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    mounted = MADE[request.param](tmp_path_factory.mktemp(request.param))
    with mounted.process:
        yield mounted


def test_the_headers_of_a_long_post_are_as_short_as_proxies_want_them(mounted: Mounted) -> None:
    messages = {'messages': [{'body': number, 'ttl': 60} for number in range(1000)]}
    posted = mounted.ask('POST', '/v2/queues/many/messages', json=messages)
    assert posted.status_code == 201
    assert len(posted.json()['resources']) == 1000
    assert sum(len(name) + len(value) + 4 for name, value in posted.headers.items()) < 4096
    assert mounted.ask('DELETE', '/v2/queues/many').status_code == 204


def test_locations_and_hrefs_are_below_the_prefix(mounted: Mounted) -> None:
    created = mounted.ask('PUT', '/v2/queues/orders')
    assert created.status_code in (201, 204)
    assert created.headers['Location'] == f'{PREFIX}/v2/queues/orders'
    messages = {'messages': [{'body': 1, 'ttl': 60}]}
    posted = mounted.ask('POST', '/v2/queues/orders/messages', json=messages)
    [resource] = posted.json()['resources']
    assert resource.startswith(f'{PREFIX}/v2/queues/orders/messages/')
    assert posted.headers['Location'].startswith(f'{PREFIX}/v2/queues/orders/messages?ids=')
    page = mounted.ask('GET', '/v2/queues/orders/messages?echo=true').json()
    assert page['messages'][0]['href'] == resource
    assert page['links'][0]['href'].startswith(f'{PREFIX}/v2/queues/orders/messages?')
    queues = mounted.ask('GET', '/v2/queues').json()
    assert queues['queues'][0]['href'] == f'{PREFIX}/v2/queues/orders'
    assert queues['links'][0]['href'].startswith(f'{PREFIX}/v2/queues?')
    stats = mounted.ask('GET', '/v2/queues/orders/stats').json()['messages']
    assert stats['oldest']['href'] == resource
    claimed = mounted.ask('POST', '/v2/queues/orders/claims', json={'ttl': 60, 'grace': 60})
    claim = claimed.headers['Location']
    assert claim.startswith(f'{PREFIX}/v2/queues/orders/claims/')
    assert claimed.json()['messages'][0]['href'].startswith(resource)
    shown = mounted.ask('GET', claim.removeprefix(PREFIX))
    assert shown.json()['href'] == claim


def test_links_of_a_path_with_two_slashes_name_no_other_host(mounted: Mounted) -> None:
    created = mounted.ask('PUT', '//v2/queues/slashes')
    assert created.headers['Location'] == f'{PREFIX}/v2/queues/slashes'
    queues = mounted.ask('GET', '///v2/queues').json()
    assert {queue['href'].rpartition('/')[0] for queue in queues['queues']} == {
        f'{PREFIX}/v2/queues'
    }
    assert queues['links'][0]['href'].startswith(f'{PREFIX}/v2/queues?')
    assert mounted.ask('GET', '/v2//queues').status_code == 404


def test_what_describes_the_api_names_the_prefix(mounted: Mounted) -> None:
    [version] = mounted.ask('GET', '/').json()['versions']
    assert version['links'] == [{'href': f'{PREFIX}/v2/', 'rel': 'self'}]
    home = mounted.ask('GET', '/v2/').json()['resources']
    assert home['rel/queues']['href-template'].startswith(f'{PREFIX}/v2/queues')
    assert home['rel/ping']['href-template'] == f'{PREFIX}/v2/ping'
    assert mounted.ask('GET', '/v2/openapi.json').json()['servers'] == [{'url': PREFIX}]


def test_the_console_and_the_health_check_are_below_the_prefix(mounted: Mounted) -> None:
    assert '<title>' in mounted.ask('GET', '/console/').text
    assert mounted.ask('GET', '/console').headers['Location'] == 'console/'
    assert mounted.ask('GET', '/healthcheck').status_code == 200


def test_websockets_are_below_the_prefix(mounted: Mounted) -> None:
    url = mounted.url.replace('http:', 'ws:')
    headers = {**mounted.headers, **IDENTITY.headers()}
    for path in ('/', '/v2/ws'):
        try:
            connection = websocket.create_connection(
                url + path, subprotocols=['zaqar.v2'], header=headers, timeout=60
            )
        except websocket.WebSocketBadStatusException as refused:
            # A worker that cannot upgrade says so, below the prefix as well.
            assert (refused.status_code, mounted.name) == (501, 'sync')
            continue
        assert mounted.name != 'sync'
        assert connection.subprotocol == 'zaqar.v2'
        connection.send(json.dumps({'id': 1, 'action': 'ping'}))
        assert json.loads(connection.recv())['status'] == 200
        connection.close()


def test_our_client_works_below_the_prefix(mounted: Mounted) -> None:
    with Client(mounted.url, project='clients') as client:
        queue = client.queue('orders')
        queue.post({'sku': 1})
        assert [message.body for message in queue.messages()] == [{'sku': 1}]


@pytest.mark.parametrize('worker', [OUR_WORKER, STOCK_WORKER])
def test_nothing_is_served_beside_the_prefix(tmp_path: pathlib.Path, worker: str) -> None:
    with GunicornProcess(
        tmp_path, *QUICK, worker=worker, env={'SCRIPT_NAME': f'{PREFIX}/'}
    ) as process:
        for path in ('/', '/v2/ping', '/messagingx/v2/ping', '/console/'):
            answer = requests.get(process.url + path, timeout=60)
            assert (answer.status_code, answer.json()['code']) == (404, 'not_found'), path
            assert answer.headers['X-OpenStack-Request-ID'].startswith('req-')
        assert requests.get(f'{process.url}{PREFIX}/', timeout=60).status_code == 300
