"""Messages as scripts return them, and as the rest of the server wants them."""

from __future__ import annotations

from zaqar_gevent.storage.interface import StoredMessage
from zaqar_gevent.storage.own_drivers import describe_edge
from zaqar_gevent.storage.redis import bodies

Page = list[StoredMessage]


def present_all(page: bytes) -> Page:
    """The messages of a script's answer (see `paginate` in shared.lua); `ttl`, `age` in seconds.

    The body is a value, or a `Body` where it was spelled unusually.
    """
    messages: Page = bodies.unpack(page)
    for message in messages:
        if 'spelling' in message:
            message['body'] = bodies.read_spelling(message.pop('spelling'))
        if 'extras' in message:
            message.update(message.pop('extras'))
            if 'dead_letter' in message:
                message['dead_letter'].setdefault('reason', None)
    return messages


def present_edge(found: bytes, now: int) -> StoredMessage:
    """The first or the last message of a script's answer, with `created` in ISO 8601."""
    [message] = present_all(found)
    return {**message, **describe_edge(message['id'], now - message['age'], now)}
