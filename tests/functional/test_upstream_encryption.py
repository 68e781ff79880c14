"""An unmodified upstream server and this one share encrypted queues on one Redis, both ways."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import requests

from tests.api.test_messages import ENCRYPTED, bodies_of, post
from tests.callers import TRANSPORTS, Identity, RestCaller, connect, new_identity
from tests.client.upstream_process import UpstreamProcess
from tests.ports import free_port
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess
from tests.unit.encryption.values import UpstreamFormat

START_SECONDS = 60
KEY = 'the key of the fleet'
SHARED = ON_REDIS + f'[transport]\nmessage_encryption_key = {KEY}\n'
MIXED_FLEET = SHARED + '[encryption]\nwrite_format = upstream\n'
"""What docs/encryption.md says for a fleet with upstream's servers in it."""
STRICT = SHARED + '[encryption]\nread_formats = aes-gcm\n'
BODIES = ['text', '', 'ü→☃', {'sku': 42, 'tags': ['a', 'b', None, True]}, [1, -2.5, 2**40], 7]


class UpstreamRest:
    """Upstream's WSGI application, as its operators run it."""

    def __init__(self, directory: pathlib.Path, config: str) -> None:
        self.url = f'http://127.0.0.1:{free_port()}'
        file = directory / '.zaqar' / 'zaqar.conf'
        file.parent.mkdir(parents=True)
        file.write_text(config + '[profiler]\nenabled = False\n')
        self._env = {**os.environ, 'HOME': str(directory)}
        self._log = directory / 'upstream.log'

    def __enter__(self) -> UpstreamRest:
        address = self.url.removeprefix('http://')
        command = [sys.executable, '-m', 'gunicorn', '-b', address, '--no-control-socket']
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                [*command, 'zaqar.transport.wsgi.app:app'], env=self._env, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f'upstream does not start:\n{self._log.read_text()}')
            time.sleep(0.05)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            requests.get(self.url + '/v2/ping', timeout=60)
            return True
        except requests.ConnectionError:
            return False


@pytest.fixture(scope='module')
def upstream(
    redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UpstreamRest]:
    config = SHARED.format(redis=redis.patient_uri)
    with UpstreamRest(tmp_path_factory.mktemp('upstream'), config) as process:
        yield process


@pytest.fixture(scope='module')
def mixed_fleet(
    redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    config = MIXED_FLEET.format(redis=redis.patient_uri)
    with ServerProcess(tmp_path_factory.mktemp('mixed'), config=config) as process:
        yield process


@pytest.fixture(scope='module')
def strict(redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = STRICT.format(redis=redis.patient_uri)
    with ServerProcess(tmp_path_factory.mktemp('strict'), config=config) as process:
        yield process


@pytest.fixture
def identity() -> Identity:
    return new_identity()


@pytest.fixture
def foreign(upstream: UpstreamRest, identity: Identity) -> Iterator[RestCaller]:
    """A client of upstream's server, in whose project there is an encrypted queue."""
    caller = RestCaller(upstream.url, identity=identity)
    created = caller.call('queue_create', queue_name='orders', metadata=ENCRYPTED)
    assert created.status == 201
    yield caller
    caller.close()


@pytest.fixture(params=TRANSPORTS)
def own(
    request: pytest.FixtureRequest, mixed_fleet: ServerProcess, identity: Identity
) -> Iterator[Any]:
    """A client of this server, in the same project."""
    caller = connect(request.param, mixed_fleet.url, mixed_fleet.websocket_url, identity)
    yield caller
    caller.close()


def listed(caller: Any) -> list[Any]:
    return bodies_of(caller.call('message_list', queue_name='orders', echo=True))


def test_what_upstream_posts_is_read_here(foreign: RestCaller, own: Any) -> None:
    ids = post(foreign, *BODIES)
    assert listed(own) == BODIES
    one = own.call('message_get', queue_name='orders', message_id=ids[3])
    assert one.body['messages']['body'] == BODIES[3]
    claim = own.call('claim_create', queue_name='orders', limit=2, ttl=60, grace=60)
    assert bodies_of(claim) == BODIES[:2]
    popped = own.call('message_delete_many', queue_name='orders', pop=4)
    assert bodies_of(popped) == BODIES[2:]


def test_what_is_posted_here_is_read_by_upstream(foreign: RestCaller, own: Any) -> None:
    ids = post(own, *BODIES)
    assert listed(foreign) == BODIES
    one = foreign.call('message_get', queue_name='orders', message_id=ids[3])
    assert one.body['messages']['body'] == BODIES[3]


def test_it_is_encrypted_in_redis(foreign: RestCaller, own: Any, redis: RedisProcess) -> None:
    for caller in (foreign, own):
        [message_id] = post(caller, 'secret')
        stored = msgpack.unpackb(redis.client.hget(message_id, 'b'))
        assert UpstreamFormat([KEY]).decrypt(stored, None) == 'secret'


def test_what_upstream_posts_in_plain_is_plain(foreign: RestCaller, own: Any) -> None:
    """Also where it is ciphertext: upstream stores what it encrypts itself in another type."""
    change = {'op': 'replace', 'path': '/metadata/_enable_encrypt_messages', 'value': False}
    text = UpstreamFormat([KEY]).encrypt('secret', None, 'orders').decode()
    own.call('queue_update', queue_name='orders', changes=[change])
    post(foreign, text, 'A' * 44)
    own.call('queue_update', queue_name='orders', changes=[{**change, 'value': True}])
    assert listed(own) == [text, 'A' * 44]


def test_the_default_format_does_not_make_upstream_fail(
    foreign: RestCaller, strict: ServerProcess, identity: Identity
) -> None:
    """It gives out what it cannot decrypt, and the other messages of the page."""
    caller = RestCaller(strict.url, identity=identity)
    post(foreign, 'before')
    post(caller, 'secret')
    post(foreign, 'after')
    before, stored, after = listed(foreign)
    assert (before, after) == ('before', 'after')
    assert stored.startswith('zgev1.')


def test_what_read_formats_does_not_list_is_not_decrypted(
    foreign: RestCaller, strict: ServerProcess, identity: Identity
) -> None:
    caller = RestCaller(strict.url, identity=identity)
    post(foreign, 'secret')
    [stored] = listed(caller)
    assert UpstreamFormat([KEY]).decrypt(stored.encode(), None) == 'secret'


def test_the_oracle_that_the_docs_describe_is_closed_by_read_formats(
    mixed_fleet: ServerProcess,
    strict: ServerProcess,
    redis: RedisProcess,
    identity: Identity,
    tmp_path: pathlib.Path,
) -> None:
    """Upstream's WebSocket stores MsgPack's binary values, which no other client can post."""
    victim = RestCaller(mixed_fleet.url)
    victim.call('queue_create', queue_name='orders', metadata=ENCRYPTED)
    [message_id] = post(victim, 'secret')
    stored = msgpack.unpackb(redis.client.hget(message_id, 'b'))
    own = RestCaller(mixed_fleet.url, identity=identity)
    own.call('queue_create', queue_name='orders')
    with UpstreamProcess(tmp_path, redis.patient_uri) as server:
        attacker = connect('ws-msgpack', '', f'ws://127.0.0.1:{server.port}/', identity)
        messages = [{'body': stored, 'ttl': 300}]
        frame = {
            'action': 'message_post',
            'headers': identity.headers(),
            'body': {'queue_name': 'orders', 'messages': messages},
        }
        assert attacker.send(frame).status == 201
        attacker.close()
    assert listed(own) == ['secret']
    assert listed(RestCaller(strict.url, identity=identity)) == [stored.decode()]


@pytest.mark.parametrize('transport', ['ws-msgpack', 'v2-msgpack'])
def test_binary_values_are_not_taken_here(mixed_fleet: ServerProcess, transport: str) -> None:
    caller = connect(transport, mixed_fleet.url, mixed_fleet.websocket_url)
    body = UpstreamFormat([KEY]).encrypt('secret', None, 'orders')
    answer = caller.call('message_post', queue_name='orders', messages=[{'body': body}])
    assert answer.status == 400
    assert listed(caller) == []
    caller.close()
