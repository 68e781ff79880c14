"""SQL for pages of messages (see `storage.core.pages`), each as one value in one row.

Every row that Python fetches is a hand-over of the GIL, which a busy hub takes its time to give
back; a page of ten messages costs no more of them than a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from zaqar_gevent import bodies
from zaqar_gevent.storage.core.pages import decode_id
from zaqar_gevent.storage.sqlite import long_bodies

SPOOL = '(SELECT id FROM spools WHERE project = :project AND name = :queue)'
"""The spool of a named queue; null when it has none."""


def decode_ids(public: Sequence[Any]) -> str:
    """The numbers of those that are ids, as a JSON array for `json_each`."""
    numbers = [decode_id(one) for one in public]
    return msgspec.json.encode([n for n in numbers if n is not None]).decode()


def message(
    claim: str,
    claim_count: str = 'm.claim_count',
    ttl: str = 'm.ttl',
    *,
    body: str = long_bodies.BODY_IN_PAGE,
) -> str:
    """SQL for the columns `document` and `body` of the message `m`.

    The document is an array in JSON, as a page wants it. PERF: SQLite makes one in half of the
    time that it takes to put together the members of an object.

    claim: SQL for the token of the claim that holds it. claim_count: SQL for how often it was
        claimed. ttl: SQL for its time to live. body: SQL for its body; null where it is read apart.
    """
    return f'{_head(claim, claim_count, ttl)} AS document, {body} AS body'


def whole_message(claim: str) -> str:
    """SQL for the same columns, with the body however long it is."""
    return message(claim, body=long_bodies.BODY)


def row(claim: str) -> str:
    """SQL for the same columns, without very long bodies, and for the numbers of long ones."""
    return f"""{_head(claim)} AS document, CASE WHEN m.long_body IS NOT NULL
        AND {long_bodies.LENGTH} >= {bodies.VERY_LONG_BYTES} THEN NULL
        ELSE ifnull(CAST({long_bodies.BODY} AS BLOB), x'') END AS body, m.long_body AS long_body"""


def _head(claim: str, claim_count: str = 'm.claim_count', ttl: str = 'm.ttl') -> str:
    return f"""json_array(format('%016x', m.id), max(0, CAST(:now - m.created AS INTEGER)), {ttl},
        {claim_count}, {claim}, m.checksum, m.placed, m.encrypted, {long_bodies.LENGTH},
        m.attributes, nullif(m.message_group, ''), m.dead_letter)"""


def page(rows: str, *columns: str) -> str:
    """SQL for one row with the page and the last position of `rows`, a query of `position` and
    `message`; and with other `columns`, SQL for aggregates of what it has besides.
    """
    return f"""SELECT CAST('[' || ifnull(group_concat(document), '') || ']' || char(10)
        || ifnull(group_concat(body, ''), '') AS BLOB) AS document,
        {', '.join(['max(position) AS last', *columns])} FROM ({rows})"""


def alone(claim: str) -> str:
    """SQL for the pages of the messages `m` of a query, each by itself."""
    return f"CAST('[' || {_head(claim)} || ']' || char(10) || ({long_bodies.BODY}) AS BLOB)"
