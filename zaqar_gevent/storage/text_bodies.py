"""Keeps encrypted bodies apart in a store that gives bytes back as text: Swift, whose driver writes
JSON.

A text is an encrypted body if it looks like one. So a plain text that looks like one is stored with
a prefix, and reads as it was posted. An upstream server does not add the prefix: what its clients
post in plain, and looks like an encrypted body, is taken for one.
"""

from __future__ import annotations

from typing import Any

from zaqar.storage import base

from zaqar_gevent.encryption import authenticated, upstream
from zaqar_gevent.storage.wrapped import Claims, Messages, replace_controllers

PREFIX = 'zgev0.'
"""The prefix of a plain text that would be taken for an encrypted body."""

_AUTHENTICATED = authenticated.PREFIX.decode()


def keep_apart(driver: base.DataDriverBase) -> None:
    """Have the driver's controllers take and give encrypted bodies as bytes."""
    # Upstream's `pop` makes a claim, which is converted.
    replace_controllers(
        driver,
        Messages(driver.message_controller, to_text, from_text),
        Claims(driver.claim_controller, from_text),
    )


def to_text(body: Any) -> Any:
    """The stored form of a body."""
    if type(body) is bytes:
        return body.decode()
    if type(body) is str and (body.startswith(PREFIX) or _looks_encrypted(body)):
        return PREFIX + body
    return body


def from_text(body: Any) -> Any:
    """The body of which this is stored."""
    if type(body) is not str:
        return body
    if body.startswith(PREFIX):
        return body.removeprefix(PREFIX)
    return body.encode() if _looks_encrypted(body) else body


def _looks_encrypted(text: str) -> bool:
    return text.startswith(_AUTHENTICATED) or upstream.looks_encrypted(text)
