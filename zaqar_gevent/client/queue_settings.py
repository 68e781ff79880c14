"""The settings of queues and topics, by the names that `configure` takes.

Written by `tox -e genoperations` from the declarations in zaqar_gevent/api.
"""

# fmt: off
# ruff: noqa: E501

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """A setting of a queue.

    name: for users. key: in the metadata. form, placeholder: how the terminal reads its value.
    told: what it is for, what is allowed, and its default. unit: as it is shown beside values.
    for_topics: whether topics have it.
    """

    name: str
    key: str
    form: str
    placeholder: str
    told: str
    unit: str
    for_topics: bool


SETTINGS = (
    Setting(
        name="max_post_size",
        key="_max_messages_post_size",
        form="number",
        placeholder="BYTES",
        told="size of a post at most, all its messages together; 1 to 262144 (default: 262144)",
        unit=' bytes',
        for_topics=True,
    ),
    Setting(
        name="default_ttl",
        key="_default_message_ttl",
        form="number",
        placeholder="SECONDS",
        told="how long messages are kept whose post does not say; 60 to 1209600 (default: 3600)",
        unit='s',
        for_topics=True,
    ),
    Setting(
        name="default_delay",
        key="_default_message_delay",
        form="whole",
        placeholder="SECONDS",
        told="how long messages reach nobody whose post does not say; 0 to 900 (default: 0)",
        unit='s',
        for_topics=True,
    ),
    Setting(
        name="dead_letter_queue",
        key="_dead_letter_queue",
        form="text",
        placeholder="QUEUE",
        told="the queue to which messages go after `max_claims` claims, or when they are rejected (default: none)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="dead_letter_ttl",
        key="_dead_letter_queue_messages_ttl",
        form="number",
        placeholder="SECONDS",
        told="how long dead letters are kept; 60 to 1209600 (default: as long as the message has left)",
        unit='s',
        for_topics=False,
    ),
    Setting(
        name="max_claims",
        key="_max_claim_count",
        form="number",
        placeholder="N",
        told="after N claims, a message that was not deleted goes to the dead letter queue. Needs `dead_letter_queue` (default: no limit)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="encrypt",
        key="_enable_encrypt_messages",
        form="switch",
        placeholder="",
        told="message bodies are stored encrypted, if the server has keys (default: no)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="retry_delay",
        key="_retry_delay",
        form="retry_delay",
        placeholder="INITIAL[,FACTOR[,MAX]]",
        told="how long a message that failed waits for its next claim: `initial` seconds; each further wait is `factor` times as long, up to `max` seconds. What is set at the claim counts; `initial` and `max` 0 to 43200, `factor` 1 to 10 (default: no wait; `factor` 2, `max` 300)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="ordered_groups",
        key="_ordered_groups",
        form="switch",
        placeholder="",
        told="messages of a group are given in their order, and to one claim or consumer at a time (default: no)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="fair_groups",
        key="_fair_groups",
        form="switch",
        placeholder="",
        told="claims take from the groups in turn, so that a large one does not hold up the others (default: no)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="trace_context",
        key="_trace_context",
        form="switch",
        placeholder="",
        told="the trace of a post (W3C Trace Context) is stored with its messages, as attributes (default: no)",
        unit='',
        for_topics=False,
    ),
    Setting(
        name="retry_policy",
        key="_retry_policy",
        form="object",
        placeholder="JSON",
        told="when a notification that failed is sent to a webhook again; members as in docs/webhooks.md (default: after 1, 2, 4, 8, 16, 32, 60 and 60 s)",
        unit='',
        for_topics=True,
    ),
    Setting(
        name="flavor",
        key="_flavor",
        form="text",
        placeholder="FLAVOR",
        told="messages are kept in the pools of this flavor; for a new queue, on a server with pools (default: any pool)",
        unit='',
        for_topics=False,
    ),
)
