"""Messages as SQLite hands them over: a page as one JSON document, in one row.

Every row that Python fetches is a hand-over of the GIL, which a busy hub takes its time to give
back; a page of ten messages costs no more of them than a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from zaqar_gevent.storage.sqlite.outage import MessageDamaged

Message = dict[str, Any]

_ID_LENGTH = 16
_ID_DIGITS = frozenset('0123456789abcdef')

SPOOL = '(SELECT id FROM spools WHERE project = :project AND name = :queue)'
"""The spool of a named queue; null when it has none."""


def encode_id(number: int) -> str:
    """The public form of a row's id: lowercase hexadecimal that sorts like the number."""
    return f'{number:016x}'


def decode_id(public: Any) -> int | None:
    """The number of a public id, or None for what is not one."""
    if not isinstance(public, str) or len(public) != _ID_LENGTH:
        return None
    if not _ID_DIGITS.issuperset(public):
        return None
    number = int(public, 16)
    return number if number < 1 << 63 else None


def decode_ids(public: Sequence[Any]) -> str:
    """The numbers of those that are ids, as a JSON array for `json_each`."""
    numbers = [decode_id(one) for one in public]
    return msgspec.json.encode([n for n in numbers if n is not None]).decode()


_ENCRYPTED = b',"encrypted":true'
"""What the document of a message has whose body is encrypted; there may be bodies with it, too."""


def message(claim: str) -> str:
    """SQL for the document of the message `m`, held by the claim token that `claim` gives.

    It has the `position` of a message that was delayed; that of any other is its id.
    """
    return f"""'{{"id":"' || printf('%016x', m.id)
        || '","age":' || max(0, CAST(:now - m.created AS INTEGER))
        || ',"ttl":' || m.ttl
        || ',"claim_count":' || m.claim_count
        || ',"claim_id":' || ifnull('"' || {claim} || '"', 'null')
        || ifnull(',"checksum":"' || m.checksum || '"', '')
        || CASE WHEN m.placed IS NULL THEN ''
            ELSE ',"position":"' || printf('%016x', m.placed) || '"' END
        || CASE m.encrypted WHEN 0 THEN '' ELSE '{_ENCRYPTED.decode()}' END
        || ',"body":' || m.body || '}}'"""


def page(rows: str) -> str:
    """SQL for one row with the page and the last position of `rows`, a query of `position` and
    `document`.
    """
    return f"""SELECT CAST('[' || ifnull(group_concat(document), '') || ']' AS BLOB) AS document,
        max(position) AS last FROM ({rows})"""


def decode_page(document: bytes) -> list[Message]:
    """The messages of a page; encrypted bodies are bytes. Raises `MessageDamaged`."""
    try:
        messages: list[Message] = msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MessageDamaged(str(error)) from None
    # PERF: most pages have none, which a search in the text tells faster than a look at each.
    if _ENCRYPTED in document:
        for one in messages:
            if one.pop('encrypted', False):
                one['body'] = one['body'].encode()
    return messages


def encode_body(body: Any) -> str:
    """The JSON text of a message's body; of an encrypted one, which is ASCII in bytes, as a text.

    Raises `TypeError` or `ValueError` for what has no JSON text.
    """
    return msgspec.json.encode(body.decode() if type(body) is bytes else body).decode()
