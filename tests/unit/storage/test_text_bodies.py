"""Upstream's Swift driver gives bytes back as text, and still keeps encrypted bodies apart."""

import json
import time
from types import SimpleNamespace

import pytest
import swiftclient
from oslo_config import cfg
from zaqar.storage.swift import driver as swift

from tests.unit.encryption.values import AuthenticatedFormat, UpstreamFormat
from zaqar_gevent import conf as configuration
from zaqar_gevent.bodies import Body, Encoding
from zaqar_gevent.encryption.upstream import looks_encrypted
from zaqar_gevent.storage import drivers, text_bodies

OWN = AuthenticatedFormat(['k' * 16]).encrypt('secret', 'p', 'q')
FOREIGN = UpstreamFormat(['key']).encrypt('secret', 'p', 'q')
PLAIN = ['plain', '', 'zgev', 7, None, {'sku': 42}, [OWN.decode()]]
TRICKY = [OWN.decode(), FOREIGN.decode(), 'zgev0.', 'zgev0.zgev1.x', 'zgev1.', 'A' * 64]
BODIES = [*PLAIN, OWN, *TRICKY, FOREIGN]


class Swift:
    """What the driver uses of a Swift server, in memory."""

    def __init__(self, _conf):
        self.containers = {}

    def put_container(self, name):
        self.containers.setdefault(name, {})

    def get_container(self, name, marker=None, limit=None, query_string=None):
        names = sorted(self._container(name), reverse=query_string == 'reverse=on')
        names = [one for one in names if not marker or one > marker]
        return {}, [{'name': one} for one in names[:limit]]

    def put_object(self, container, name, contents, content_type=None, headers=None):
        now = time.time()
        kept = {**(headers or {}), 'x-timestamp': str(now), 'x-delete-at': str(int(now) + 300)}
        data = contents.encode() if isinstance(contents, str) else contents
        self._container(container)[name] = kept, data

    def get_object(self, container, name):
        try:
            return self._container(container)[name]
        except KeyError:
            raise swiftclient.ClientException('missing', http_status=404) from None

    def head_object(self, container, name):
        return self.get_object(container, name)[0]

    def delete_object(self, container, name):
        self.get_object(container, name)
        del self.containers[container][name]

    def _container(self, name):
        if name not in self.containers:
            raise swiftclient.ClientException('missing', http_status=404)
        return self.containers[name]


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(swift, '_ClientWrapper', Swift)
    conf = configuration.load(cfg.ConfigOpts(), [])
    queues = SimpleNamespace(
        exists=lambda *names, **options: True, get_metadata=lambda *names, **options: {}
    )
    driver = swift.DataDriver(conf, None, SimpleNamespace(queue_controller=queues))
    monkeypatch.setattr(swift.DataDriver, 'queue_controller', queues, raising=False)
    drivers.protect(driver)
    return driver


def post(store, *bodies):
    messages = [{'body': Body.of(body), 'ttl': 300} for body in bodies]
    return store.message_controller.post('q', messages, 'client', project='p')


def bodies_of(messages):
    return [value_of(message['body']) for message in messages]


def value_of(body):
    return bytes(body.data) if body.encoding is Encoding.ENCRYPTED else body.value


def test_bytes_are_given_back_as_bytes_and_text_as_text(store):
    ids = post(store, *BODIES)
    messages, claims = store.message_controller, store.claim_controller
    results = messages.list('q', 'p', limit=100, echo=True)
    assert bodies_of(next(results)) == BODIES
    assert next(results) == ids[-1]
    assert bodies_of(messages.bulk_get('q', ids, 'p')) == BODIES
    assert bodies_of(messages.get('q', one, 'p') for one in ids) == BODIES
    assert bodies_of([messages.first('q', 'p')]) == BODIES[:1]
    claim_id, claimed = claims.create('q', {'ttl': 60, 'grace': 60}, 'p', limit=100)
    assert bodies_of(claimed) == BODIES
    assert bodies_of(claims.get('q', claim_id, 'p')[1]) == BODIES
    claims.delete('q', claim_id, 'p')
    assert bodies_of(messages.pop('q', 100, 'p')) == BODIES
    assert bodies_of(next(messages.list('q', 'p', limit=100, echo=True))) == []


def test_upstreams_format_is_stored_as_upstream_stores_it(store):
    [message_id] = post(store, FOREIGN)
    [container] = [one for name, one in store.connection.containers.items() if 'q' in name]
    assert json.loads(container[message_id][1])['body'] == FOREIGN.decode()


@pytest.mark.parametrize('body', BODIES, ids=range(len(BODIES)))
def test_every_body_is_told_from_what_is_stored_of_it(body):
    stored = json.loads(json.dumps(text_bodies.to_text(body)))
    assert text_bodies.from_text(stored) == body
    assert type(text_bodies.from_text(stored)) is type(body)


@pytest.mark.parametrize('body', PLAIN, ids=range(len(PLAIN)))
def test_nearly_every_plain_body_is_stored_as_it_is(body):
    assert text_bodies.to_text(body) == body


@pytest.mark.parametrize('length', range(40))
def test_whatever_upstream_encrypts_looks_encrypted(length):
    encrypted = UpstreamFormat(['key']).encrypt('x' * length, 'p', 'q').decode()
    assert looks_encrypted(encrypted)
    assert not looks_encrypted(encrypted[:-4])
    assert not looks_encrypted(encrypted + '\n')
    assert not looks_encrypted('=' + encrypted[1:])
