"""Messages as scripts return them, and as the rest of the server wants them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from zaqar_gevent.storage.redis import bodies

Message = dict[str, Any]
Page = list[Message]
Record = list[Any]


def present(record: Record, now: int) -> Message:
    """One message of a script's answer (see `present` in shared.lua); `ttl`, `age` in seconds."""
    message_id, body, ttl, created, claim, count, checksum = record
    message: Message = {
        'id': message_id.decode(),
        'age': max(0, now - int(created)),
        'ttl': int(ttl),
        'body': bodies.unpack(body),
        'claim_id': claim.decode() or None,
        'claim_count': int(count or 0),
    }
    if checksum:
        message['checksum'] = checksum.decode()
    return message


def present_all(records: Iterable[Record], now: int) -> Page:
    """The messages of a script's answer."""
    return [present(record, now) for record in records]


def present_edge(record: Record, now: int) -> Message:
    """The first or the last message, with `created` in ISO 8601."""
    return {**present(record, now), **describe([record[0], record[3]], now)}


def describe(record: Record, now: int) -> Message:
    """What `stats` tells of a message of which this is the id and when it was created."""
    created = int(record[1])
    moment = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        'id': record[0].decode(),
        'age': max(0, now - created),
        'created': moment.strftime('%Y-%m-%dT%H:%M:%SZ'),
    }
