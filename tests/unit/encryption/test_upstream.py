"""Upstream's format: compatible both ways, and nothing in it is ever run."""

from __future__ import annotations

import base64
import os
import pathlib
import pickle
import tracemalloc
from typing import Any

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from oslo_config import cfg
from zaqar.transport import encryptor

from tests.unit.encryption.values import AuthenticatedFormat, UpstreamFormat
from zaqar_gevent.encryption.formats import Unreadable

KEY = 'a key'
BODIES: list[Any] = ['text', '', 'I1\n.', 'ü\0', {'sku': [42, None, 1.5]}, [], 7, None, True]


@pytest.fixture
def upstream() -> Any:
    conf = cfg.ConfigOpts()
    conf([])
    encryptor.EncryptionFactory(conf)
    conf.set_override('message_encryption_key', KEY, 'transport')
    return encryptor.EncryptionFactory(conf).getEncryptor()


def encrypted_by(upstream: Any, body: Any) -> bytes:
    message = {'body': body}
    upstream.message_encrypted([message])
    assert type(message['body']) is bytes
    return message['body']


def encrypted_plaintext(plaintext: bytes) -> bytes:
    """Any bytes, as upstream would encrypt them."""
    iv = os.urandom(16)
    upstream_key = encryptor.hashlib.sha256(KEY.encode()).digest()
    cipher = Cipher(algorithms.AES(upstream_key), modes.CBC(iv)).encryptor()
    padder = padding.PKCS7(128).padder()
    padded = padder.update(plaintext) + padder.finalize()
    return base64.b64encode(iv + cipher.update(padded) + cipher.finalize())


@pytest.mark.parametrize('body', BODIES, ids=repr)
def test_a_body_is_read_back(body: Any) -> None:
    own = UpstreamFormat([KEY])
    encrypted = own.encrypt(body, 'p', 'q')
    assert encrypted.isascii()
    assert own.decrypt(encrypted, 'p') == body
    assert own.encrypt(body, 'p', 'q') != encrypted


@pytest.mark.parametrize('body', BODIES, ids=repr)
def test_upstream_reads_what_is_written_here(upstream: Any, body: Any) -> None:
    message = {'body': UpstreamFormat([KEY]).encrypt(body, 'p', 'q')}
    upstream.message_decrypted([message])
    assert message['body'] == body


@pytest.mark.parametrize('body', BODIES, ids=repr)
def test_what_upstream_writes_is_read_here(upstream: Any, body: Any) -> None:
    assert UpstreamFormat([KEY]).decrypt(encrypted_by(upstream, body), 'p') == body


def test_every_key_decrypts_and_the_first_encrypts(upstream: Any) -> None:
    both = UpstreamFormat(['new', KEY])
    assert both.decrypt(encrypted_by(upstream, {'sku': 42}), 'p') == {'sku': 42}
    encrypted = both.encrypt('text', 'p', 'q')
    assert UpstreamFormat(['new']).decrypt(encrypted, 'p') == 'text'
    with pytest.raises(Unreadable):
        UpstreamFormat([KEY]).decrypt(both.encrypt({'sku': 'x' * 100}, 'p', 'q'), 'p')


class _Program:
    """Unpickling it creates a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self._path,)


def test_a_text_that_is_a_program_is_read_as_text(upstream: Any, tmp_path: pathlib.Path) -> None:
    """A client of an upstream server can store this; reading it must not run it."""
    target = tmp_path / 'created'
    text = pickle.dumps(_Program(target), protocol=0).decode()
    assert UpstreamFormat([KEY]).decrypt(encrypted_by(upstream, text), 'p') == text
    assert not target.exists()


@pytest.mark.parametrize('protocol', range(2, 6))
def test_a_pickle_that_is_a_program_is_not_read(tmp_path: pathlib.Path, protocol: int) -> None:
    target = tmp_path / 'created'
    program = encrypted_plaintext(pickle.dumps(_Program(target), protocol))
    with pytest.raises(Unreadable):
        UpstreamFormat([KEY]).decrypt(program, 'p')
    assert not target.exists()


@pytest.mark.parametrize('bomb', [b'Nr\xff\xff\xff\x3f.', b'\x80\x02Nr\xff\xff\xff\x3f.'])
def test_a_large_memo_index_costs_nothing(bomb: bytes) -> None:
    encrypted = encrypted_plaintext(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            UpstreamFormat([KEY]).decrypt(encrypted, 'p')
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


NOT_ENCRYPTED = {
    'nothing': b'',
    'no base64': b'not base64!',
    'one block': base64.b64encode(bytes(16)),
    'half a block': base64.b64encode(bytes(40)),
    'not padded': base64.b64encode(bytes(48)),
    'no UTF-8': encrypted_plaintext(b'\xff\xfe'),
    'of this server': AuthenticatedFormat([KEY]).encrypt('text', 'p', 'q'),
}


@pytest.mark.parametrize('data', NOT_ENCRYPTED.values(), ids=NOT_ENCRYPTED.keys())
def test_what_was_not_encrypted_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        UpstreamFormat([KEY]).decrypt(data, 'p')


def test_another_key_does_not_read_it(upstream: Any) -> None:
    encrypted = encrypted_by(upstream, {'sku': 42})
    for number in range(300):
        with pytest.raises(Unreadable):
            UpstreamFormat([f'another key {number}']).decrypt(encrypted, 'p')
