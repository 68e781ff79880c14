"""Messages as scripts return them, and as the rest of the server wants them."""

from __future__ import annotations

import datetime
from typing import Any

from zaqar_gevent.storage.redis import bodies

Message = dict[str, Any]
Page = list[Message]


def present_all(page: bytes) -> Page:
    """The messages of a script's answer (see `paginate` in shared.lua); `ttl`, `age` in seconds."""
    messages: Page = bodies.unpack(page)
    return messages


def present_edge(found: bytes, now: int) -> Message:
    """The first or the last message of a script's answer, with `created` in ISO 8601."""
    message: Message = bodies.unpack(found)
    return {**message, **describe(message['id'], now - message['age'], now)}


def describe(message_id: str, created: int, now: int) -> Message:
    """What `stats` tells of a message; `created` in seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        'id': message_id,
        'age': max(0, now - created),
        'created': moment.strftime('%Y-%m-%dT%H:%M:%SZ'),
    }
