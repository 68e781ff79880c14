"""This server's format: only what was encrypted for a project is ever decrypted for it."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from oslo_config import cfg
from zaqar.transport import encryptor

from tests.unit.encryption.values import AuthenticatedFormat, UpstreamFormat
from zaqar_gevent.bodies import Body, Encoding
from zaqar_gevent.encryption import authenticated
from zaqar_gevent.encryption.authenticated import PREFIX
from zaqar_gevent.encryption.formats import Unreadable

KEY, OTHER_KEY = 'a key of 16 chars', 'another key of 16 chars'
BODIES: list[Any] = ['text', '', 'ü\0', {'sku': [42, None, 1.5]}, [], 7, None, True, 'x' * 100_000]


@pytest.fixture
def own() -> AuthenticatedFormat:
    return AuthenticatedFormat([KEY])


@pytest.mark.parametrize('body', BODIES, ids=lambda body: repr(body)[:20])
def test_a_body_is_read_back(own: AuthenticatedFormat, body: Any) -> None:
    encrypted = own.encrypt(body, 'p', 'q')
    assert encrypted.isascii()
    assert AuthenticatedFormat([KEY]).decrypt(encrypted, 'p') == body
    assert own.encrypt(body, 'p', 'q') != encrypted


def test_no_project_is_one_of_its_own(own: AuthenticatedFormat) -> None:
    assert own.decrypt(own.encrypt('text', None, 'q'), None) == 'text'
    with pytest.raises(Unreadable):
        own.decrypt(own.encrypt('text', None, 'q'), 'p')


@pytest.mark.parametrize('project', ['other', '', None, 'pq', 'q', 'P'])
def test_another_project_does_not_read_it(own: AuthenticatedFormat, project: str | None) -> None:
    with pytest.raises(Unreadable):
        own.decrypt(own.encrypt('text', 'p', 'q'), project)


def test_project_and_queue_are_told_apart(own: AuthenticatedFormat) -> None:
    """The queue `a` of `bc` is not the queue `ab` of `c`."""
    encrypted = base64.b64decode(own.encrypt('text', 'bc', 'a')[len(PREFIX) :])
    moved = encrypted.replace(b'\x01\x01a', b'\x01\x02ab')
    assert moved != encrypted
    with pytest.raises(Unreadable):
        own.decrypt(PREFIX + base64.b64encode(moved), 'c')


def test_the_queue_it_was_posted_to_is_covered(own: AuthenticatedFormat) -> None:
    encrypted = base64.b64decode(own.encrypt('text', 'p', 'orders')[len(PREFIX) :])
    moved = encrypted.replace(b'orders', b'others')
    assert moved != encrypted
    with pytest.raises(Unreadable):
        own.decrypt(PREFIX + base64.b64encode(moved), 'p')


def test_every_key_decrypts_and_the_first_encrypts(own: AuthenticatedFormat) -> None:
    both = AuthenticatedFormat([OTHER_KEY, KEY])
    assert both.decrypt(own.encrypt('old', 'p', 'q'), 'p') == 'old'
    encrypted = both.encrypt('new', 'p', 'q')
    assert AuthenticatedFormat([OTHER_KEY]).decrypt(encrypted, 'p') == 'new'
    with pytest.raises(Unreadable, match='not configured'):
        own.decrypt(encrypted, 'p')


def test_any_damage_is_noticed(own: AuthenticatedFormat) -> None:
    encrypted = own.encrypt({'sku': 42}, 'p', 'q')
    data = base64.b64decode(encrypted[len(PREFIX) :])
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            with pytest.raises(Unreadable):
                own.decrypt(PREFIX + base64.b64encode(damaged), 'p')
    for length in range(len(encrypted)):
        with pytest.raises(Unreadable):
            own.decrypt(encrypted[:length], 'p')


def test_noise_is_refused(own: AuthenticatedFormat) -> None:
    chooser = random.Random(1)
    for _ in range(2000):
        noise = chooser.randbytes(chooser.randrange(80))
        for data in (noise, PREFIX + noise, PREFIX + base64.b64encode(noise)):
            with pytest.raises(Unreadable):
                own.decrypt(data, 'p')


def test_upstreams_format_is_refused(own: AuthenticatedFormat) -> None:
    with pytest.raises(Unreadable):
        own.decrypt(UpstreamFormat([KEY]).encrypt('text', 'p', 'q'), 'p')


@pytest.mark.parametrize('length', range(20))
def test_upstream_gives_it_out_as_it_is(own: AuthenticatedFormat, length: int) -> None:
    """Where it meets it in an encrypted queue; a failure would be one of the whole page."""
    conf = cfg.ConfigOpts()
    conf([])
    upstream = encryptor.EncryptionFactory(conf).getEncryptor()
    for queue in ('q', 'qq', 'qqq'):
        encrypted = own.encrypt('x' * length, 'p', queue)
        message = {'body': encrypted}
        upstream.message_decrypted([message])
        assert message['body'] == encrypted


@pytest.mark.parametrize('encoding', [Encoding.JSON, Encoding.MSGPACK])
def test_a_body_stays_as_it_is_encoded(encoding: Encoding) -> None:
    data = {Encoding.JSON: b'{"sku" :\t4.20e1}', Encoding.MSGPACK: b'\x81\xa3sku\xcd\x00\x2a'}
    own = authenticated.AuthenticatedFormat([KEY])
    body = own.decrypt(own.encrypt(Body(encoding, data[encoding]), 'p', 'q'), 'p')
    assert (body.encoding, body.data) == (encoding, data[encoding])
