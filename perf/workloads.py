"""What servers are asked: what clients of a message service spend their time with."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from perf.load import Exchange, Failed
from perf.wire import Answer, Conversation, Dialect

TEXT = '64 KB of text'
SIZES = {'100 B': 100, '4 KB': 4096, '64 KB': 65536, TEXT: 65536}
TTL = 3600
PAGE = 10
# What may be posted at once is limited by size, to 256 KiB.
_FILL_BYTES = 200_000
_FILL_COUNT = 100

_RECORD = {'event': 'BackupStarted', 'volume': 'c378813c-3f0b-11e2', 'size': 1024, 'ok': True}


def body_of(size: int) -> dict[str, Any]:
    """A document of records, as programs send them, of exactly `size` bytes in JSON."""
    each = len(msgspec.json.encode(_RECORD)) + 1
    body: dict[str, Any] = {'items': [_RECORD] * max(0, (size - 30) // each), 'pad': ''}
    body['pad'] = 'x' * (size - len(msgspec.json.encode(body)))
    return body


class Cell(NamedTuple):
    """One operation with bodies of one size.

    size: a name in `SIZES`; empty where there are no bodies. connections: how many ask together.
    """

    operation: str
    size: str = ''
    connections: int = 16

    @property
    def name(self) -> str:
        """What it is called in tables."""
        alone = ', one connection' if self.connections == 1 else ''
        return f'{self.operation}, {self.size}{alone}' if self.size else self.operation


POST, POST_TEN, LIST = 'post 1', 'post 10', 'list 10'
CLAIM, CLAIM_EACH = 'claim 10 + delete 10', 'claim 10 + delete each'
CLAIMS = (CLAIM, CLAIM_EACH)
GET, STATS, PING = 'queue get', 'queue stats', 'ping'

# The long bodies come last: they fill disks and caches.
CELLS = [
    Cell(POST, '100 B'),
    Cell(POST, '100 B', connections=1),
    Cell(POST_TEN, '100 B'),
    Cell(LIST, '100 B'),
    Cell(CLAIM, '100 B'),
    Cell(CLAIM_EACH, '100 B'),
    Cell(GET),
    Cell(STATS),
    Cell(PING),
    Cell(POST, '4 KB'),
    Cell(POST_TEN, '4 KB'),
    Cell(LIST, '4 KB'),
    Cell(CLAIM, '4 KB'),
    Cell(LIST, '64 KB'),
    Cell(POST, '64 KB'),
    Cell(POST, TEXT),
]


def messages(size: str, count: int) -> list[dict[str, Any]]:
    length = SIZES[size]
    body = 'x' * (length - len('""')) if size == TEXT else body_of(length)
    return [{'body': body, 'ttl': TTL}] * count


def exchange_of(cell: Cell, dialect: Dialect, name: str) -> Exchange:
    """What is asked again and again, in `dialect`, of the queue of this `name`."""
    queue = {'queue_name': name}
    if cell.operation in CLAIMS:
        return _claiming(name, dialect, together=cell.operation == CLAIM)
    action, body = {
        POST: lambda: ('message_post', {**queue, 'messages': messages(cell.size, 1)}),
        POST_TEN: lambda: ('message_post', {**queue, 'messages': messages(cell.size, 10)}),
        LIST: lambda: ('message_list', {**queue, 'echo': True, 'limit': PAGE}),
        GET: lambda: ('queue_get', queue),
        STATS: lambda: ('queue_get_stats', queue),
        PING: lambda: ('ping_node', {}),
    }[cell.operation]()
    return Exchange(lambda ident: dialect.encode(action, body, ident))


def _claiming(queue: str, dialect: Dialect, *, together: bool) -> Exchange:
    """Claim ten messages, and delete those ten, together or each when its work would be done."""
    name = {'queue_name': queue}
    claim = {**name, 'limit': PAGE, 'ttl': 300, 'grace': 60}

    def delete(answer: bytes, ident: int) -> list[bytes]:
        claimed = dialect.decode(answer).body or {}
        found = [message['id'] for message in claimed.get('messages', ())]
        if len(found) < PAGE:
            return []
        if together:
            return [dialect.encode('message_delete_many', {**name, 'message_ids': found}, ident)]
        return [
            dialect.encode('message_delete', {**name, 'message_id': each, **proof}, ident)
            for each, proof in zip(found, _proofs(claimed), strict=True)
        ]

    return Exchange(lambda ident: dialect.encode('claim_create', claim, ident), delete)


def _proofs(claimed: dict[str, Any]) -> list[dict[str, str]]:
    """What shows for each message that it is the client's: its claim.

    WebSocket answers name it, REST answers have it in each message's address.
    """
    if 'claim_id' in claimed:
        return [{'claim_id': claimed['claim_id']}] * len(claimed['messages'])
    addresses = [message['href'] for message in claimed['messages']]
    return [{'claim_id': address.partition('?claim_id=')[2]} for address in addresses]


def prepare(conversation: Conversation, cell: Cell, queue: str) -> None:
    """Make what the operation needs: the queue, and messages to list."""
    if cell.operation == PING:
        return
    expect(conversation.ask('queue_create', queue_name=queue))
    if cell.operation in (LIST, STATS):
        fill(conversation, queue, cell.size or '100 B', PAGE)


def fill(conversation: Conversation, queue: str, size: str, count: int) -> None:
    """Post `count` messages, several at a time."""
    at_once = max(1, min(_FILL_COUNT, _FILL_BYTES // (SIZES[size] + 100)))
    request = b''
    while count > 0:
        if not request or count < at_once:
            at_once = min(at_once, count)
            body = {'queue_name': queue, 'messages': messages(size, at_once)}
            request = conversation.dialect.encode('message_post', body, 1)
        expect(conversation.send(request))
        count -= at_once


def expect(answer: Answer) -> None:
    """Raise `Failed` unless the answer reports success."""
    if not 200 <= answer.status < 300:
        raise Failed(answer)
