"""Message bodies of encrypted queues, in the format that upstream's servers write and read.

A body is pickled, padded (PKCS #7), encrypted by AES-256-CBC under the SHA-256 of
`[transport] message_encryption_key`, prefixed with the initialization vector and written in
base64. Upstream encrypts a text body without pickling it and unpickles whatever it has decrypted,
so a text that *is* a pickle runs as a program there. Here every body is pickled, which upstream
reads alike, and only plain data is ever unpickled.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import pickle
from typing import Any

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_IV_BYTES = 16


class DecryptionFailed(ValueError):
    """A stored body is not what this key has encrypted."""


class _PlainData(pickle.Unpickler):
    """Unpickles JSON's types, which need no class to be looked up, and nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f'{module_name}.{global_name} is not plain data')


class MessageCipher:
    """Encrypts and decrypts the bodies of messages with one key."""

    def __init__(self, key: str) -> None:
        self._key = algorithms.AES(hashlib.sha256(key.encode()).digest())

    def encrypt(self, messages: list[dict[str, Any]]) -> None:
        """Replace each `message['body']` by its ciphertext, as text."""
        for message in messages:
            message['body'] = self._encrypt(pickle.dumps(message['body'], protocol=4))

    def decrypt(self, messages: list[dict[str, Any]]) -> None:
        """Replace each ciphertext by the body that was encrypted.

        Raises `DecryptionFailed` where the key or the data is another.
        """
        for message in messages:
            message['body'] = _load(self._decrypt(message['body']))

    def _encrypt(self, plaintext: bytes) -> str:
        iv = os.urandom(_IV_BYTES)
        padder = padding.PKCS7(algorithms.AES.block_size).padder()
        encryptor = Cipher(self._key, modes.CBC(iv)).encryptor()
        padded = padder.update(plaintext) + padder.finalize()
        return base64.b64encode(iv + encryptor.update(padded) + encryptor.finalize()).decode()

    def _decrypt(self, body: Any) -> bytes:
        try:
            data = base64.b64decode(body)
            decryptor = Cipher(self._key, modes.CBC(data[:_IV_BYTES])).decryptor()
            padded = decryptor.update(data[_IV_BYTES:]) + decryptor.finalize()
            unpadder = padding.PKCS7(algorithms.AES.block_size).unpadder()
            return unpadder.update(padded) + unpadder.finalize()
        except (ValueError, TypeError) as error:
            raise DecryptionFailed(str(error)) from None


def _load(plaintext: bytes) -> Any:
    """What was pickled; upstream's text bodies, which were not, as text."""
    try:
        return _PlainData(io.BytesIO(plaintext)).load()
    except Exception:  # an unpickler raises whatever a text that is no pickle leads it to
        return _text(plaintext)


def _text(plaintext: bytes) -> str:
    try:
        return plaintext.decode()
    except UnicodeDecodeError as error:
        raise DecryptionFailed(str(error)) from None
