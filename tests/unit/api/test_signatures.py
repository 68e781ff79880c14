"""Signatures by the Standard Webhooks convention."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from zaqar_gevent.api import signatures

# The example of the convention's own libraries.
SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
IDENT = 'msg_p5jXN8AQM9LWM0D4loKWxJek'
SECONDS = 1614265330
BODY = [b'{"test": ', b'2432232314}']
SIGNATURE = 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='


def secret_of(size: int) -> str:
    return signatures.PREFIX + base64.b64encode(b'k' * size).decode()


def test_the_conventions_example() -> None:
    keys = signatures.read_secrets(SECRET)
    assert signatures.headers(keys, IDENT, SECONDS, BODY) == {
        'webhook-id': IDENT,
        'webhook-timestamp': str(SECONDS),
        'webhook-signature': SIGNATURE,
    }


def test_two_secrets_sign_both() -> None:
    keys = signatures.read_secrets([secret_of(24), SECRET])
    signed = signatures.headers(keys, IDENT, SECONDS, BODY)['webhook-signature'].split(' ')
    assert len(set(signed)) == 2
    assert signed[1] == SIGNATURE


@pytest.mark.parametrize(
    'wrong',
    [
        *(secret_of(23), secret_of(65), SECRET.removeprefix('whsec_'), 'whsec_', 'whsec_%%%', ''),
        *('whsec_ü', 1, True, None, {}, [], [SECRET] * 3, [1], [[SECRET]]),
    ],
)
def test_what_is_no_secret_is_told_but_not_repeated(wrong: Any) -> None:
    with pytest.raises(ValueError, match='secret') as told:
        signatures.read_secrets(wrong)
    assert len(str(wrong)) < 10 or str(wrong) not in str(told.value)


@pytest.mark.parametrize('size', [24, 64])
def test_the_sizes_that_are_allowed(size: int) -> None:
    assert signatures.read_secrets(secret_of(size)) == [b'k' * size]
