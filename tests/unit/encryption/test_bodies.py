"""What is encrypted, decrypted and given out as it is, by the options."""

from __future__ import annotations

import base64
import hashlib
import logging
import random
from typing import Any

import bson
import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from oslo_config import cfg
from zaqar.conf import transport

from tests.unit.encryption.values import AuthenticatedFormat, UpstreamFormat
from zaqar_gevent.api import documents
from zaqar_gevent.bodies import Body, Encoding
from zaqar_gevent.encryption import options
from zaqar_gevent.encryption.bodies import BodyCipher

KEY, OLD_KEY, UPSTREAM_KEY = 'k' * 16, 'old key', "upstream's key"


def cipher_of(shared: dict[str, Any] | None = None, **values: Any) -> BodyCipher:
    """The cipher of a configuration with these values in `[transport]` and `[encryption]`."""
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[])
    for group, opts, given in (
        (transport.GROUP_NAME, transport.ALL_OPTS, shared or {}),
        (options.GROUP, options.ALL_OPTS, values),
    ):
        conf.register_opts(opts, group)
        for name, value in given.items():
            conf.set_override(name, value, group)
    return options.build_cipher(conf)


def decrypted(cipher: BodyCipher, stored: bytes) -> Any:
    return cipher.decrypt(Body(Encoding.ENCRYPTED, stored), 'p').value


def encrypted(cipher: BodyCipher, body: Any, project: str = 'p', queue: str = 'q') -> bytes:
    [message] = cipher.encrypt([{'ttl': 60, 'body': Body.of(body)}], project, queue)
    assert message['ttl'] == 60
    stored = message['body']
    assert stored.encoding is Encoding.ENCRYPTED
    return bytes(stored.data)


def test_by_default_the_authenticated_format_is_written_and_both_are_read() -> None:
    cipher = cipher_of()
    stored = encrypted(cipher, {'sku': 42})
    assert AuthenticatedFormat(['AES256']).decrypt(stored, 'p') == {'sku': 42}
    assert decrypted(cipher, stored) == {'sku': 42}
    foreign = UpstreamFormat(['AES256']).encrypt({'sku': 42}, 'p', 'q')
    assert decrypted(cipher, foreign) == {'sku': 42}


def test_what_is_posted_stays_as_it_is() -> None:
    body = Body.of('text')
    messages = [{'ttl': 60, 'body': body}]
    cipher_of().encrypt(messages, 'p', 'q')
    assert messages == [{'ttl': 60, 'body': body}]


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    shared = {'message_encryption_key': UPSTREAM_KEY}
    cipher = cipher_of(shared, keys=[KEY, OLD_KEY])
    for key in (KEY, OLD_KEY, UPSTREAM_KEY):
        for made in (AuthenticatedFormat([key]), UpstreamFormat([key])):
            assert decrypted(cipher, made.encrypt('text', 'p', 'q')) == 'text'
    assert AuthenticatedFormat([KEY]).decrypt(encrypted(cipher, 'text'), 'p') == 'text'


def test_upstreams_format_is_written_with_upstreams_key() -> None:
    shared = {'message_encryption_key': UPSTREAM_KEY}
    cipher = cipher_of(shared, keys=[KEY], write_format='upstream')
    assert UpstreamFormat([UPSTREAM_KEY]).decrypt(encrypted(cipher, 'text'), 'p') == 'text'


def test_a_format_that_is_not_listed_is_not_read() -> None:
    foreign = UpstreamFormat(['AES256']).encrypt('text', 'p', 'q')
    assert decrypted(cipher_of(read_formats=['aes-gcm']), foreign) == foreign.decode()
    own = encrypted(cipher_of(), 'text')
    only_upstream = cipher_of(write_format='upstream', read_formats=['upstream'])
    assert decrypted(only_upstream, own) == own.decode()


@pytest.mark.parametrize('cipher', [cipher_of(), cipher_of({'message_encryption_key': ''})])
def test_what_cannot_be_decrypted_is_given_as_text(cipher: BodyCipher) -> None:
    stored = encrypted(cipher_of(keys=['x' * 16]), 'text')
    assert decrypted(cipher, stored) == stored.decode()
    assert decrypted(cipher, b'') == ''


def test_whatever_is_stored_can_be_given_out() -> None:
    """A message that has been taken must not be lost because its body is strange."""
    chooser = random.Random(1)
    cipher = cipher_of()
    key = algorithms.AES(hashlib.sha256(b'AES256').digest())
    own = encrypted(cipher, {'sku': 42})
    for _ in range(5000):
        plaintext = b'\x80\x04' * chooser.randint(0, 1) + chooser.randbytes(chooser.randrange(40))
        padder = padding.PKCS7(128).padder()
        encryptor = Cipher(key, modes.CBC(bytes(16))).encryptor()
        padded = padder.update(plaintext) + padder.finalize()
        foreign = base64.b64encode(bytes(16) + encryptor.update(padded) + encryptor.finalize())
        damaged = bytearray(own)
        damaged[chooser.randrange(len(own))] = chooser.randrange(128)
        for body in (foreign, bytes(damaged), foreign[: chooser.randrange(len(foreign))]):
            given = decrypted(cipher, body)
            documents.decode_json(documents.encode_json(given))
            documents.encode_msgpack(given)


def test_a_binary_value_is_left_alone(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        assert decrypted(cipher_of(), b'\xff\xfe') == b'\xff\xfe'
    assert not caplog.records


def test_mongodb_gives_encrypted_bodies_back_as_bytes() -> None:
    stored = encrypted(cipher_of(), 'text')
    assert bson.decode(bson.encode({'b': stored, 't': stored.decode()})) == {
        'b': stored,
        't': stored.decode(),
    }


def test_without_a_key_nothing_is_encrypted() -> None:
    cipher = cipher_of({'message_encryption_key': ''})
    assert not cipher.can_encrypt
    with pytest.raises(RuntimeError):
        cipher.encrypt([], 'p', 'q')


def test_what_cannot_be_decrypted_is_logged_once_a_minute(caplog: Any) -> None:
    now = [0.0]
    cipher = BodyCipher(None, [AuthenticatedFormat([KEY])], clock=lambda: now[0])
    foreign = AuthenticatedFormat(['x' * 16]).encrypt('secret', 'p', 'q')
    with caplog.at_level(logging.WARNING):
        for now[0] in (0.0, 30.0, 59.0, 60.0, 61.0):
            decrypted(cipher, foreign)
    assert len(caplog.records) == 2
    assert 'not configured' in caplog.text
    assert foreign.decode() not in caplog.text


@pytest.mark.parametrize(
    ('values', 'is_warned'),
    [
        ({}, True),
        ({'write_format': 'upstream', 'keys': [KEY]}, True),
        ({'keys': [KEY]}, False),
    ],
)
def test_the_key_that_everybody_knows_is_warned_of_once(
    values: dict[str, Any], is_warned: bool, caplog: Any
) -> None:
    cipher = cipher_of(**values)
    with caplog.at_level(logging.WARNING):
        assert not caplog.records
        encrypted(cipher, 'text')
        encrypted(cipher, 'text')
    assert [record.levelname for record in caplog.records] == ['WARNING'] * is_warned


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {'read_formats': ['upstream']}, 'must include write_format (aes-gcm)'),
    ({}, {'read_formats': []}, 'must include write_format (aes-gcm)'),
    (
        {},
        {'write_format': 'upstream', 'read_formats': ['aes-gcm']},
        'must include write_format (upstream)',
    ),
    (
        {'message_encryption_key': ''},
        {'write_format': 'upstream', 'keys': [KEY]},
        '[transport] message_encryption_key',
    ),
    ({}, {'keys': ['short']}, 'at least 16 characters, not 5'),
    ({}, {'keys': [KEY, KEY]}, 'twice'),
    ({}, {'keys': [KEY, '']}, 'empty'),
    ({'message_encryption_algorithms': 'RSA'}, {}, 'must be AES256, not RSA'),
]


@pytest.mark.parametrize(('shared', 'values', 'reason'), WRONG)
def test_options_that_contradict_each_other_are_refused(
    shared: dict[str, Any], values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(options.BadEncryptionOptions) as caught:
        cipher_of(shared, **values)
    assert reason in str(caught.value)
    assert KEY not in str(caught.value)
