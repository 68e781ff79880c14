"""Signatures of webhooks, by the Standard Webhooks convention (standardwebhooks.com, version 1).

A secret is `whsec_` and 24 to 64 random bytes in base64. A request is signed by HMAC-SHA256 over
its id, its time and its body, with each of the subscription's secrets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence

SECRET = 'webhook_secret'  # noqa: S105  (the option's name)
PREFIX = 'whsec_'
MAX_SECRETS = 2

_KEY_BYTES = range(24, 65)


def read_secrets(value: object) -> list[bytes]:
    """The keys in a subscription's option: one secret, or a list of two while they change.

    Raises `ValueError`, whose text does not repeat the value.
    """
    secrets = value if isinstance(value, list) else [value]
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise ValueError(f'There must be one secret, or a list of at most {MAX_SECRETS}')
    return [_key(secret) for secret in secrets]


def headers(
    keys: Sequence[bytes], ident: str, seconds: int, body: Iterable[bytes]
) -> dict[str, str]:
    """The headers that sign a request.

    ident: the same for each try. seconds: when it is sent, since the epoch. body: its parts.
    """
    signed = [f'{ident}.{seconds}.'.encode(), *body]
    return {
        'webhook-id': ident,
        'webhook-timestamp': str(seconds),
        'webhook-signature': ' '.join(_signature(key, signed) for key in keys),
    }


def _key(secret: object) -> bytes:
    text = secret.removeprefix(PREFIX) if isinstance(secret, str) else ''
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b''
    if not isinstance(secret, str) or not secret.startswith(PREFIX) or len(key) not in _KEY_BYTES:
        raise ValueError(
            f'A secret must be {PREFIX!r} followed by {_KEY_BYTES[0]} to {_KEY_BYTES[-1]} bytes '
            'in base64'
        )
    return key


def _signature(key: bytes, parts: Sequence[bytes]) -> str:
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part)
    return f'v1,{base64.b64encode(digest.digest()).decode()}'
