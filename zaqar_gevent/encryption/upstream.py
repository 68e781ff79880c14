"""The format of upstream's servers (`zaqar.transport.encryptor`).

A body is padded (PKCS #7), encrypted by AES-256-CBC under the SHA-256 of a key, prefixed with the
initialization vector and written in base64. Upstream pickles bodies first, except texts, and
unpickles whatever it has decrypted, so there a text that *is* a pickle runs as a program. Here
every body is pickled, which upstream reads alike; and what was decrypted is a pickle only if it
begins with a byte that no text begins with.

The format has no authentication and is bound to nothing: whoever can have a body decrypted, can
have any body decrypted. With a wrong key about one short body in a million reads as nonsense
instead of failing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import re
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from zaqar_gevent.bodies import Body, ValueBody
from zaqar_gevent.encryption import pickled
from zaqar_gevent.encryption.formats import Unreadable

_BLOCK_BYTES = 16
_MIN_LENGTH = 44
_BASE64 = re.compile('[A-Za-z0-9+/]+={0,2}', re.ASCII)


class UpstreamFormat:
    """Encrypts with the first of `keys`, decrypts with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [algorithms.AES(hashlib.sha256(key.encode()).digest()) for key in keys]

    def encrypt(self, body: Body, project: str | None, queue: str) -> bytes:
        """`body` encrypted; project and queue leave no trace in it."""
        iv = os.urandom(_BLOCK_BYTES)
        padder = padding.PKCS7(algorithms.AES.block_size).padder()
        encryptor = Cipher(self._keys[0], modes.CBC(iv)).encryptor()
        padded = padder.update(pickle.dumps(body.value, protocol=4)) + padder.finalize()
        return base64.b64encode(iv + encryptor.update(padded) + encryptor.finalize())

    def decrypt(self, encrypted: bytes, project: str | None) -> Body:
        """The body that was encrypted, for any project; raises `Unreadable`."""
        try:
            data = base64.b64decode(encrypted, validate=True)
        except ValueError:
            raise Unreadable('it is not in base64') from None
        if len(data) < 2 * _BLOCK_BYTES or len(data) % _BLOCK_BYTES:
            raise Unreadable('it is not a number of blocks')
        for key in self._keys:
            try:
                return ValueBody(_load(_decrypt(key, data)))
            except ValueError:
                continue
        raise Unreadable('none of the keys fits')


def looks_encrypted(text: str) -> bool:
    """Whether a text could be a body in this format: base64 of two or more blocks."""
    length = len(text)
    if length < _MIN_LENGTH or length % 4 or not _BASE64.fullmatch(text):
        return False
    return (length // 4 * 3 - text.count('=')) % _BLOCK_BYTES == 0


def _decrypt(key: algorithms.AES, data: bytes) -> bytes:
    decryptor = Cipher(key, modes.CBC(data[:_BLOCK_BYTES])).decryptor()
    padded = decryptor.update(data[_BLOCK_BYTES:]) + decryptor.finalize()
    unpadder = padding.PKCS7(algorithms.AES.block_size).unpadder()
    return unpadder.update(padded) + unpadder.finalize()


def _load(plaintext: bytes) -> Any:
    """The pickled value, or the text if it was not pickled."""
    if plaintext.startswith(pickled.START):
        return pickled.load(plaintext)
    return plaintext.decode()
