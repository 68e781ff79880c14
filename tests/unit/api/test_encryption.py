"""Encrypted bodies: compatible with upstream's, and nothing in them is ever run."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any

import pytest
from oslo_config import cfg
from zaqar.transport import encryptor

from zaqar_gevent.api.encryption import DecryptionFailed, MessageCipher

KEY = 'a key'
BODIES: list[Any] = ['text', '', 'I1\n.', {'sku': [42, None, 1.5]}, [], 7, None, True]


@pytest.fixture
def upstream() -> Any:
    conf = cfg.ConfigOpts()
    conf([])
    factory = encryptor.EncryptionFactory(conf)
    conf.set_override('message_encryption_key', KEY, 'transport')
    factory = encryptor.EncryptionFactory(conf)
    return factory.getEncryptor()


@pytest.mark.parametrize('body', BODIES, ids=repr)
def test_a_body_is_read_back(body: Any) -> None:
    message = {'body': body}
    cipher = MessageCipher(KEY)
    cipher.encrypt([message])
    assert isinstance(message['body'], str)
    assert message['body'] != body
    cipher.decrypt([message])
    assert message['body'] == body


@pytest.mark.parametrize('body', BODIES, ids=repr)
def test_upstream_reads_what_is_written_here(upstream: Any, body: Any) -> None:
    message = {'body': body}
    MessageCipher(KEY).encrypt([message])
    upstream.message_decrypted([message])
    assert message['body'] == body


@pytest.mark.parametrize('body', ['text', {'sku': [42]}, [1], 7], ids=repr)
def test_what_upstream_writes_is_read_here(upstream: Any, body: Any) -> None:
    message = {'body': body}
    upstream.message_encrypted([message])
    MessageCipher(KEY).decrypt([message])
    assert message['body'] == body


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
    message = {'body': text}
    upstream.message_encrypted([message])
    MessageCipher(KEY).decrypt([message])
    assert message['body'] == text
    assert not target.exists()


@pytest.mark.parametrize('body', ['', 'not base64!', 'AAAA', 7, None])
def test_what_was_not_encrypted_is_refused(body: Any) -> None:
    with pytest.raises(DecryptionFailed):
        MessageCipher(KEY).decrypt([{'body': body}])


def test_another_key_does_not_read_it() -> None:
    message = {'body': {'sku': 42}}
    MessageCipher(KEY).encrypt([message])
    ciphertext = message['body']
    with pytest.raises(DecryptionFailed):
        for number in range(300):
            MessageCipher(f'another key {number}').decrypt([{'body': ciphertext}])
