"""This server's format: AES-256-GCM, bound to the project and queue of the first posting.

::

    zgev1.BASE64(fill | key id | encoding | length of the queue's name | name | nonce | ciphertext)
                   8 B     1 B        1 B                                12 B    with a 16 B tag

The key of a body is derived (HKDF-SHA256) from the operator's key, the project and the queue. So
what was encrypted for one project cannot be decrypted for another, and the number of bodies under
one key stays far below what random nonces are good for (2^32). The name of the queue is in the
clear, since a dead letter is read from another queue than it was posted to; the tag covers it. The
project is not written down: messages never change it.

The key id is derived from the operator's key, too. Of several keys it names the one to use.

The fill is one to three bytes long, its first byte tells how long, and makes the base64 text end
without padding. With the prefix it then has a length that no base64 text can have, so upstream's
server, which takes every body of an encrypted queue for one of its own, gives it out as it is
instead of failing for the whole page.
"""

from __future__ import annotations

import base64
import functools
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from zaqar_gevent.bodies import Body, Encoding
from zaqar_gevent.encryption.formats import Unreadable

PREFIX = b'zgev1.'
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16

_KEY_BYTES = 32
# What stands for each encoding of the plaintext.
_NUMBER_OF = {Encoding.JSON: 1, Encoding.MSGPACK: 2}
_ENCODING_OF = {number: encoding for encoding, number in _NUMBER_OF.items()}
_REMEMBERED_KEYS = 4096


class AuthenticatedFormat:
    """Encrypts with the first of `keys`, decrypts with whichever the body names."""

    def __init__(self, keys: Sequence[str]) -> None:
        ids = [_derive(key, KEY_ID_BYTES, b'key id') for key in keys]
        self._key_id = ids[0]
        self._keys = dict(zip(ids, keys, strict=True))
        # PERF: deriving a key costs ten times what encrypting a short body does.
        self._cipher_of = functools.lru_cache(_REMEMBERED_KEYS)(self._derive_cipher)

    def encrypt(self, body: Body, project: str | None, queue: str) -> bytes:
        """`body` encrypted for a queue of a project."""
        name = queue.encode()
        plaintext = memoryview(body.data)
        size = KEY_ID_BYTES + 2 + len(name) + NONCE_BYTES + len(plaintext) + TAG_BYTES
        fill = bytes([3 - size % 3]) * (3 - size % 3)
        head = b''.join((fill, self._key_id, bytes((_NUMBER_OF[body.encoding], len(name))), name))
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._cipher_of(self._key_id, project, name).encrypt(nonce, plaintext, head)
        return PREFIX + base64.b64encode(head + nonce + ciphertext)

    def decrypt(self, encrypted: bytes, project: str | None) -> Body:
        """The body that was encrypted for this project; raises `Unreadable`."""
        if not encrypted.startswith(PREFIX):
            raise Unreadable('it is in another format')
        try:
            data = base64.b64decode(encrypted[len(PREFIX) :], validate=True)
            key_at = data[0]
            encoding_at = key_at + KEY_ID_BYTES
            name_at = encoding_at + 2
            nonce_at = name_at + data[encoding_at + 1]
        except (ValueError, IndexError):
            raise Unreadable('it is damaged') from None
        encoding = _ENCODING_OF.get(data[encoding_at])
        if encoding is None:
            raise Unreadable('it is from a newer version')
        key_id = data[key_at:encoding_at]
        if key_id not in self._keys:
            raise Unreadable(f'the key {key_id.hex()} is not configured')
        cipher = self._cipher_of(key_id, project, data[name_at:nonce_at])
        return Body(encoding, _open(cipher, data, nonce_at))

    def _derive_cipher(self, key_id: bytes, project: str | None, name: bytes) -> AESGCM:
        # A name is at most 255 bytes long, so that no two pairs look the same.
        about = b'body' + bytes([len(name)]) + name + (project or '').encode()
        return AESGCM(_derive(self._keys[key_id], _KEY_BYTES, about))


def _open(cipher: AESGCM, data: bytes, nonce_at: int) -> bytes:
    """The plaintext of the ciphertext behind the nonce."""
    ciphertext_at = nonce_at + NONCE_BYTES
    try:
        return cipher.decrypt(data[nonce_at:ciphertext_at], data[ciphertext_at:], data[:nonce_at])
    except (InvalidTag, ValueError):
        raise Unreadable('it was encrypted for another project, or is damaged') from None


def _derive(key: str, size: int, about: bytes) -> bytes:
    info = b'zaqar_gevent ' + about
    return HKDF(algorithm=hashes.SHA256(), length=size, salt=None, info=info).derive(key.encode())
