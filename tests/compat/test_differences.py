"""The same requests to upstream's REST application and to ours: statuses and bodies compared.

Both have a new store each, of the same kind, in the same state. What differs on purpose is in
`DELIBERATE`, with its reason.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import falcon.testing
import pytest
import requests
from oslo_config import cfg
from zaqar import bootstrap
from zaqar.transport.wsgi.v2_0 import homedoc

from tests.server_process import ServerProcess
from zaqar_gevent.server import TransportDriver

CLIENT = '3381af92-2b9e-11e3-b191-71861300734c'
OTHER = '3381af92-2b9e-11e3-b191-71861300734d'
HEADERS = {'Client-ID': CLIENT, 'X-Project-ID': 'demo', 'Content-Type': 'application/json'}
PATCH = 'application/openstack-messaging-v2.0-json-patch'
ABSENT = object()

QUEUE = '/v2/queues/orders'
TOPIC = '/v2/topics/prices'
PLACES = (QUEUE, TOPIC)


class Exchange(NamedTuple):
    """One request."""

    method: str
    path: str
    body: Any = ABSENT
    headers: tuple[tuple[str, str | None], ...] = ()

    def __str__(self) -> str:
        body = '' if self.body is ABSENT else f' {self.encoded!r}'
        headers = f' {dict(self.headers)}' if self.headers else ''
        return f'{self.method} {self.path}{body}{headers}'[:200]

    @property
    def encoded(self) -> bytes:
        if self.body is ABSENT:
            return b''
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Answer(NamedTuple):
    """A status and a body; of errors, the status alone, and whether there is a document."""

    status: int
    body: Any
    location: str | None


class Server:
    """One of the applications."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.known: dict[str, str] = {}

    def ask(self, exchange: Exchange) -> Answer:
        """Send a request; `<NAME>` in it stands for what this server calls it."""
        status, headers, content = self._send(exchange)
        if status >= 400:
            return Answer(status, None, None)
        body = json.loads(content) if content else None
        return Answer(status, _normal(body), _plain(headers.get('location')))

    def _send(self, exchange: Exchange) -> tuple[int, dict[str, str], bytes]:
        headers = {**HEADERS, **dict(exchange.headers)}
        path, _, query = self._own(exchange.path).partition('?')
        environ = falcon.testing.create_environ(
            path,
            query,
            method=exchange.method,
            body=self._own(exchange.encoded.decode('latin-1')),
            headers={name: value for name, value in headers.items() if value is not None},
        )
        answered = falcon.testing.StartResponseMock()
        content = b''.join(self._app(environ, answered))
        lowered = {name.lower(): value for name, value in answered.headers}
        return int(answered.status[:3]), lowered, content

    def prepare(self) -> None:
        """Make something to ask for, and learn what it is called."""
        messages = {'messages': [{'body': n, 'ttl': 300} for n in range(6)]}
        self._send(Exchange('PUT', QUEUE, {'team': 'sales'}))
        self._send(Exchange('PUT', TOPIC))
        _, _, posted = self._send(Exchange('POST', f'{QUEUE}/messages', messages))
        self._send(Exchange('POST', f'{TOPIC}/messages', messages))
        ids = [href.rsplit('/', 1)[1] for href in json.loads(posted)['resources']]
        lease = {'ttl': 300, 'grace': 300}
        _, claimed, _ = self._send(Exchange('POST', f'{QUEUE}/claims?limit=2', lease))
        subscription = {'subscriber': 'http://127.0.0.1:1/', 'ttl': 300, 'options': {}}
        _, _, made = self._send(Exchange('POST', f'{QUEUE}/subscriptions', subscription))
        self.known = {
            'held': ids[0],
            'free': ids[3],
            'claim': claimed['location'].rsplit('/', 1)[1],
            'subscription': json.loads(made)['subscription_id'],
        }

    def _own(self, text: str) -> str:
        return re.sub(r'<(\w+)>', lambda match: self.known[match[1]], text)


_TIMES = ('created', 'age', 'expires', 'signature', 'checksum', 'id', 'subscription_id')


def _plain(text: str | None) -> str | None:
    """Text in which every id is the same."""
    return text and re.sub(r'([0-9a-f]{16,}|(?<=marker=)[^&]+)', 'ID', text)


def _normal(value: Any, key: str = '') -> Any:
    """A body without what differs from one time to another."""
    if isinstance(value, dict):
        return {name: _normal(member, name) for name, member in value.items()}
    if isinstance(value, list):
        return [_normal(member, key) for member in value]
    if key in _TIMES:
        return type(value).__name__
    return _plain(value) if isinstance(value, str) else value


def new_server(path: pathlib.Path, *, is_ours: bool) -> Server:
    path.mkdir()
    file = path / 'zaqar.conf'
    uri = f'sqlite:///{path}/zaqar.sqlite'
    file.write_text(
        f'[DEFAULT]\nadmin_mode = True\n[drivers]\nmessage_store = sqlite\n'
        f'management_store = sqlite\n[drivers:message_store:sqlite]\nuri = {uri}\n'
        f'[drivers:management_store:sqlite]\nuri = {uri}\n[signed_url]\nsecret_key = key\n'
        '[drivers:transport:gevent]\nallowed_hosts = *\n[profiler]\nenabled = False\n'
    )
    conf = cfg.ConfigOpts()
    conf(args=[], project='zaqar', prog='zaqar-queues', default_config_files=[str(file)])
    boot = bootstrap.Bootstrap(conf)
    if is_ours:
        return Server(TransportDriver(conf, boot.storage, boot.cache, boot.control).app)
    return Server(boot.transport.app)


@pytest.fixture
def _configuration_files() -> None:
    """Nothing of upstream's own tests is needed here."""


POOLED = """
[DEFAULT]
admin_mode = True
pooling = True
[pooling:catalog]
enable_virtual_pool = True
"""

# What differs on purpose: which requests, how upstream and we answer, and why. What upstream
# answers with 5xx we may answer as is right.
DELIBERATE = [
    ('[?]limit=(1_0|%2B1|%D9%A1|%201)$', (200, 400), 'an integer has ASCII digits'),
    ('^OPTIONS ', (200, 404), 'a path that does not exist does not exist for OPTIONS either'),
    ('^GET /v2/ ?', (200, 200), 'what we have and upstream has not is in the home document too'),
    ('^GET / .*X-Project-ID.*x{100}', (300, 400), 'what no project can be called is refused'),
    ('^GET /v2/ .*X-Project-ID.*x{100}', (200, 400), 'what no project can be called is refused'),
    (r'/v2/topics\?with_count=', (200, 400), 'upstream takes it for a filter of topics'),
    (r'/v2/topics\?with_count=', (200, 200), 'upstream takes it for a filter of topics'),
    ('^PUT .*_', (204, 400), 'reserved metadata of a wrong type is refused'),
    ('^GET /v2/topics/prices/stats', (200, 200), 'upstream does not count the messages of topics'),
    (
        'purge .*unknown',
        (204, 400),
        'a misspelt member is refused: over WebSocket it would purge all there is',
    ),
    ('purge .*resource_types": [\'"{]', (204, 400), 'a list is a list'),
    ('share .*(paths|methods)": (0|""|{})', (200, 400), 'a list is a list'),
    (r'share .*methods": \["(x|other)"\]', (200, 400), 'there is no such method of HTTP'),
    ('^GET .*/messages', (200, 200), 'the link to the next page repeats what was asked for'),
    ('messages .*"delay": ', (201, 400), 'a delay is a number, in a queue without delays too'),
    ('claims.*"grace": true', (204, 400), 'a boolean is no number'),
    ('claims/none.*"grace": true', (404, 400), 'a boolean is no number'),
    ('claims.*"grace": -1', (204, 400), 'a grace below nothing is refused, as at creation'),
    ('claims/none.*"grace": -1', (404, 400), 'a grace below nothing is refused, as at creation'),
    ('subscriptions .*"options": (0|""|\\[)', (201, 400), 'an object is an object'),
    ('PATCH .*subscriptions.*"options": (0|""|\\[)', (404, 400), 'an object is an object'),
    ('PATCH .*subscriptions.*"options": (0|""|\\[)', (204, 400), 'an object is an object'),
    ('PATCH .*subscriptions.*"subscriber": (0|""|\\[|{)', (404, 400), 'a subscriber is a text'),
    ('PATCH .*subscriptions.*"subscriber": (0|"")', (204, 400), 'a subscriber is a text'),
    ('^PUT /v2/queues/orders9', (204, 201), 'a request that is refused creates no queue'),
]

VALUES = (None, True, 0, 1, 60, -1, 1.5, '', 'x', '60', [], ['x'], {}, {'x': 1})
QUERIES = ('', 'x', '0', '1', '-1', '1.5', '20', '21', 'true', 'false', 'True', '1,2', '%00', '%20')


def with_bodies(method: str, path: str, good: dict[str, Any]) -> Iterator[Exchange]:
    """A request with its body left out, with other bodies, and with each member changed."""
    for body in (ABSENT, good, *VALUES, b'{', b'', b'null', {**good, 'unknown': 1}):
        yield Exchange(method, path, body)
    for name in good:
        yield Exchange(method, path, {key: good[key] for key in good if key != name})
        for value in VALUES:
            # A subscription without any time to live is gone at once upstream, and refused here.
            if not ('subscriptions' in path and name == 'ttl' and value == 0):
                yield Exchange(method, path, {**good, name: value})


def with_queries(method: str, path: str, *names: str, body: Any = ABSENT) -> Iterator[Exchange]:
    for name in names:
        for value in QUERIES:
            yield Exchange(method, f'{path}?{name}={value}', body)
        yield Exchange(method, f'{path}?{name}', body)


def exchanges() -> Iterator[Exchange]:
    """All requests, in the order in which they are sent."""
    for path in ('/', '/v2', '/v2/', '/v2/ping', '/v2/health', '/v1', '/v1.1', '/v3', '/nowhere'):
        for method in ('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'):
            yield Exchange(method, path)
    yield from _of_queues()
    yield from _of_metadata()
    yield from _of_purging_and_sharing()
    yield from _of_messages()
    yield from _of_claims()
    yield from _of_subscriptions()
    yield from _of_headers()
    yield from _of_methods()


def _of_queues() -> Iterator[Exchange]:
    for kind in ('queues', 'topics'):
        path = f'/v2/{kind}'
        yield Exchange('GET', path)
        yield from with_queries(
            'GET', path, 'limit', 'marker', 'detailed', 'name', 'with_count', 'x'
        )
        for value in ('1_0', '%2B1', '%D9%A1', '%201', '-0', '010'):
            yield Exchange('GET', f'{path}?limit={value}')
        for name in (
            'a',
            'a.b',
            'a-b_',
            'x' * 64,
            'x' * 65,
            'a%20b',
            '%C3%BC',
            'a/',
            'a%2Fb',
            '%00',
        ):
            for method in ('PUT', 'GET', 'DELETE', 'GET'):
                yield Exchange(method, f'{path}/{name}')
            yield Exchange('GET', f'{path}/{name}/stats')


def _of_metadata() -> Iterator[Exchange]:
    metadata = {
        '_default_message_ttl': 300,
        '_default_message_delay': 1,
        '_max_messages_post_size': 100,
        '_dead_letter_queue': 'dead',
        '_dead_letter_queue_messages_ttl': 300,
        '_max_claim_count': 3,
        '_enable_encrypt_messages': False,
        'team': 'a',
    }
    for place in PLACES:
        yield from with_bodies('PUT', f'{place}2', metadata)
        yield Exchange('GET', f'{place}2')
        change = {'op': 'add', 'path': '/metadata/team', 'value': 'b'}
        for changes in with_bodies('PATCH', place, change):
            yield changes._replace(headers=(('Content-Type', PATCH),))
            if isinstance(changes.body, dict):
                yield changes._replace(body=[changes.body], headers=(('Content-Type', PATCH),))
            yield Exchange('GET', place)
        for op in ('add', 'replace', 'remove', 'test', 'move'):
            for target in (
                '/metadata/team',
                '/metadata/none',
                '/metadata',
                '/x/y',
                '/metadata/a/b',
            ):
                step = {'op': op, 'path': target, 'value': 1}
                yield Exchange('PATCH', place, [step], (('Content-Type', PATCH),))
        yield Exchange('PATCH', place, [change])


def _of_purging_and_sharing() -> Iterator[Exchange]:
    for place in PLACES:
        yield Exchange('GET', f'{place}/stats')
        purge = {'resource_types': ['messages']}
        yield from with_bodies('POST', f'{place}3/purge', purge)
        for kinds in (['messages', 'subscriptions'], ['other'], ['messages', 'other'], [None]):
            yield Exchange('POST', f'{place}3/purge', {'resource_types': kinds})
        share = {'paths': ['messages'], 'methods': ['GET'], 'expires': '2100-01-01T00:00:00'}
        yield from with_bodies('POST', f'{place}/share', share)
        for members in (
            *({'paths': ['claims', 'subscriptions']}, {'paths': ['other']}, {'methods': ['POST']}),
            *({'methods': ['other']}, {'expires': '1999-01-01T00:00:00'}, {'expires': 'soon'}),
        ):
            yield Exchange('POST', f'{place}/share', {**share, **members})


def _of_messages() -> Iterator[Exchange]:
    for place in PLACES:
        path = f'{place}4/messages'
        yield Exchange('GET', path)
        yield Exchange('GET', f'{path}/none')
        good = {'messages': [{'body': {'a': 1}, 'ttl': 300}]}
        yield from with_bodies('POST', path, good)
        for name, value in itertools.product(('body', 'ttl', 'delay'), VALUES):
            yield Exchange('POST', path, {'messages': [{'body': 1, 'ttl': 300, name: value}]})
        for message in ({}, {'ttl': 300}, {'body': 1}, {'body': 1, 'ttl': 59}, {'body': 1, 'x': 1}):
            yield Exchange('POST', path, {'messages': [message]})
        yield from with_queries('GET', path, *('limit', 'echo', 'include_claimed', 'x', 'ids'))
        yield from with_queries('GET', f'{place}5/messages', 'marker', 'include_delayed')
        yield from with_queries('DELETE', f'{place}5/messages', 'ids', 'pop', 'x')
        yield Exchange('DELETE', f'{place}5/messages')
        yield Exchange('DELETE', f'{place}5/messages?ids=a&pop=1')
        yield Exchange('GET', f'{place}/messages?echo=true')
        yield Exchange('GET', f'{place}/messages?echo=true&include_claimed=true&limit=2')
        yield Exchange('GET', f'{place}/messages', headers=(('Client-ID', OTHER),))
    for name in ('free', 'held'):
        yield Exchange('GET', f'{QUEUE}/messages/<{name}>')
        yield Exchange('GET', f'{QUEUE}/messages?ids=<{name}>')
        yield Exchange('GET', f'{QUEUE}/messages?ids=<{name}>,none')
        yield from with_queries('DELETE', f'{QUEUE}/messages/<held>', 'claim_id')
        yield Exchange('DELETE', f'{QUEUE}/messages/<{name}>?claim_id=<claim>')
        yield Exchange('DELETE', f'{QUEUE}/messages/<{name}>')
        yield Exchange('DELETE', f'{QUEUE}/messages/<{name}>')
        yield Exchange('GET', f'{QUEUE}/messages/<{name}>')


def _of_claims() -> Iterator[Exchange]:
    lease = {'ttl': 300, 'grace': 300}
    yield Exchange('GET', f'{QUEUE}/claims/<claim>')
    yield from with_bodies('PATCH', f'{QUEUE}/claims/<claim>', lease)
    yield from with_bodies('PATCH', f'{QUEUE}/claims/none', lease)
    yield from with_bodies('POST', f'{QUEUE}6/claims', lease)
    yield from with_queries('POST', f'{QUEUE}6/claims', 'limit', 'x', body=lease)
    yield Exchange('POST', f'{QUEUE}/claims', lease)
    for method in ('GET', 'DELETE', 'GET'):
        yield Exchange(method, f'{QUEUE}/claims/<claim>')
    yield Exchange('DELETE', f'{QUEUE}/claims/none')


def _of_subscriptions() -> Iterator[Exchange]:
    good = {'subscriber': 'http://127.0.0.1:1/a', 'ttl': 300, 'options': {'a': 1}}
    # Upstream answers those of topics with 500.
    for place, name in ((QUEUE, 'subscription'),):
        path = f'{place}/subscriptions'
        yield from with_bodies('POST', path, good)
        yield Exchange('POST', path, good)
        for subscriber in ('ftp://a', 'HTTP://a.example', 'mailto:a@b.example', 'trust+ftp://a'):
            yield Exchange('POST', path, {**good, 'subscriber': subscriber})
        yield from with_bodies('PATCH', f'{path}/<{name}>', {**good, 'subscriber': 'http://b/'})
        yield from with_bodies('PATCH', f'{path}/none', good)
        yield from with_bodies('PUT', f'{path}/<{name}>/confirm', {'confirmed': True})
        yield from with_bodies('PUT', f'{path}/none/confirm', {'confirmed': True})
        yield from with_queries('GET', f'{place}7/subscriptions', 'limit', 'marker', 'x')
        for method in ('GET', 'DELETE', 'DELETE', 'GET'):
            yield Exchange(method, f'{path}/<{name}>')
        yield Exchange('GET', f'{path}/none')
        yield Exchange('DELETE', f'{path}/none')


def _of_headers() -> Iterator[Exchange]:
    for name, values in {
        'Client-ID': (None, '', 'x', CLIENT.upper(), f'{{{CLIENT}}}', CLIENT.replace('-', '')),
        'X-Project-ID': (None, '', 'x' * 256, 'x' * 257, ' x '),
        'Accept': ('text/html', 'application/xml', '*/*', 'application/*', 'text/html, */*;q=0.1'),
        'Content-Type': (
            *(None, '', 'text/plain', 'application/x-www-form-urlencoded', 'application/json; a=b'),
        ),
    }.items():
        for value in values:
            headers = ((name, value),)
            yield Exchange('GET', '/', headers=headers)
            yield Exchange('GET', '/v2/', headers=headers)
            yield Exchange('GET', f'{QUEUE}/messages', headers=headers)
            yield Exchange('POST', f'{QUEUE}8/messages', {'messages': [{'body': 1}]}, headers)
            yield Exchange('PUT', f'{QUEUE}8', {'a': 1}, headers)


def _of_methods() -> Iterator[Exchange]:
    paths = ('', '/messages', '/messages/x', '/claims', '/claims/x', '/subscriptions', '/stats')
    more = ('/subscriptions/x', '/subscriptions/x/confirm', '/purge', '/share', '/x', '/metadata')
    for method in ('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE'):
        for place in PLACES:
            for path in (*paths, *more):
                yield Exchange(method, f'{place}9{path}')


def is_deliberate(exchange: Exchange, theirs: Answer, ours: Answer) -> bool:
    """Whether an answer differs for one of the reasons given."""
    if theirs.status >= 500:
        return ours.status < 500
    return any(
        re.search(pattern, str(exchange)) and statuses == (theirs.status, ours.status)
        for pattern, statuses, _ in DELIBERATE
    )


@pytest.fixture(scope='module')
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Exchange, Answer, Answer]]:
    """All requests with what upstream and we answer."""
    path = tmp_path_factory.mktemp('compared')
    upstream = new_server(path / 'upstream', is_ours=False)
    ours = new_server(path / 'ours', is_ours=True)
    for server in (upstream, ours):
        server.prepare()
    return [(one, upstream.ask(one), ours.ask(one)) for one in exchanges()]


Compared = list[tuple[Exchange, Answer, Answer]]


def test_every_answer_is_upstreams_unless_there_is_a_reason(compared: Compared) -> None:
    different = [
        f'{exchange}\n  upstream {theirs}\n  ours     {ours}'
        for exchange, theirs, ours in compared
        if theirs != ours and not is_deliberate(exchange, theirs, ours)
    ]
    assert not different, f'{len(different)}:\n' + '\n'.join(different[:50])


def test_nothing_is_a_fault_of_ours(compared: Compared) -> None:
    assert [(str(exchange), ours) for exchange, _, ours in compared if ours.status >= 500] == []


@pytest.mark.parametrize(('pattern', 'statuses', 'reason'), DELIBERATE)
def test_every_reason_is_needed(
    compared: Compared, pattern: str, statuses: tuple[int, int], reason: str
) -> None:
    assert any(
        re.search(pattern, str(exchange)) and statuses == (theirs.status, ours.status)
        for exchange, theirs, ours in compared
        if theirs != ours
    ), reason


RESOURCES = {**homedoc.JSON_HOME['resources'], **homedoc.ADMIN_RESOURCES}


def test_the_home_document_says_of_upstreams_resources_what_upstreams_says(
    tmp_path: pathlib.Path,
) -> None:
    with ServerProcess(tmp_path, config=POOLED) as server:
        ours = requests.get(f'{server.url}/v2/', headers=HEADERS, timeout=60).json()['resources']
    assert {name: ours.get(name) for name in RESOURCES} == RESOURCES
    assert {name for name in ours if not name.startswith('rel/topic')} - RESOURCES.keys() == {
        'rel/subscription_confirm'
    }
