"""The settings of queues and topics: the reserved keys of their metadata, each declared once.

From here come the validation of metadata, the table in `docs/settings.md`, the names that the
clients' `configure` takes and the options of the terminal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from zaqar_gevent.api import retries
from zaqar_gevent.retry_delays import NewRetryDelay
from zaqar_gevent.storage.features import Feature

Form = Literal['number', 'whole', 'text', 'switch', 'retry_delay', 'object']
"""How the terminal reads a value: a number of at least 1 or of at least 0, a text, yes or no, the
parts of a delay, or JSON."""

_Retries = Annotated[int, msgspec.Meta(ge=0, le=retries.MAX_RETRIES)]
_Delay = Annotated[int, msgspec.Meta(ge=0, le=retries.MAX_DELAY)]


class RetryPolicy(msgspec.Struct):
    """How often and at what intervals a failed notification is sent again, in seconds."""

    retries_with_no_delay: _Retries | None = None
    minimum_delay_retries: _Retries | None = None
    minimum_delay: _Delay | None = None
    maximum_delay: _Delay | None = None
    maximum_delay_retries: _Retries | None = None
    retry_backoff_function: str | None = None
    ignore_subscription_override: bool | None = None


class Setting(NamedTuple):
    """A setting of a queue.

    name: by which clients set it. key: in the metadata. type: of its value, which may be null, too.
    form, placeholder: how the terminal reads and names its value. unit: as it is shown beside
    values. effect, allowed, default: for people.
    option: of `[transport]`, where its default is configured. is_shown: whether queues that do not
    have it show it with its default, as upstream's do. for_topics: whether topics have it.
    feature: what the store must be able to do; None if all stores can. is_upstreams: whether
    upstream's servers know it.
    """

    name: str
    key: str
    type: Any
    form: Form
    effect: str
    default: str
    allowed: str = ''
    placeholder: str = ''
    unit: str = ''
    option: str | None = None
    is_shown: bool = False
    for_topics: bool = False
    feature: Feature | None = None
    is_upstreams: bool = False


# Those that queues show come in the order in which upstream's do.
SETTINGS = (
    Setting(
        'max_post_size',
        '_max_messages_post_size',
        int,
        'number',
        'size of a post at most, all its messages together',
        '262144',
        allowed='1 to 262144',
        placeholder='BYTES',
        unit=' bytes',
        option='max_messages_post_size',
        is_shown=True,
        for_topics=True,
        is_upstreams=True,
    ),
    Setting(
        'default_ttl',
        '_default_message_ttl',
        int,
        'number',
        'how long messages are kept whose post does not say',
        '3600',
        allowed='60 to 1209600',
        placeholder='SECONDS',
        unit='s',
        option='default_message_ttl',
        is_shown=True,
        for_topics=True,
        is_upstreams=True,
    ),
    Setting(
        'default_delay',
        '_default_message_delay',
        int,
        'whole',
        'how long messages reach nobody whose post does not say',
        '0',
        allowed='0 to 900',
        placeholder='SECONDS',
        unit='s',
        option='default_message_delay',
        is_shown=True,
        for_topics=True,
        is_upstreams=True,
    ),
    Setting(
        'dead_letter_queue',
        '_dead_letter_queue',
        str,
        'text',
        'the queue to which messages go after `max_claims` claims, or when they are rejected',
        'none',
        placeholder='QUEUE',
        is_shown=True,
        is_upstreams=True,
    ),
    Setting(
        'dead_letter_ttl',
        '_dead_letter_queue_messages_ttl',
        int,
        'number',
        'how long dead letters are kept',
        'as long as the message has left',
        allowed='60 to 1209600',
        placeholder='SECONDS',
        unit='s',
        is_shown=True,
        is_upstreams=True,
    ),
    Setting(
        'max_claims',
        '_max_claim_count',
        int,
        'number',
        'after N claims, a message that was not deleted goes to the dead letter queue. Needs '
        '`dead_letter_queue`',
        'no limit',
        placeholder='N',
        is_shown=True,
        is_upstreams=True,
    ),
    Setting(
        'encrypt',
        '_enable_encrypt_messages',
        bool,
        'switch',
        'message bodies are stored encrypted, if the server has keys',
        'no',
        is_shown=True,
        is_upstreams=True,
    ),
    Setting(
        'retry_delay',
        '_retry_delay',
        NewRetryDelay,
        'retry_delay',
        'how long a message that failed waits for its next claim: `initial` seconds; each further '
        'wait is `factor` times as long, up to `max` seconds. What is set at the claim counts',
        'no wait; `factor` 2, `max` 300',
        allowed='`initial` and `max` 0 to 43200, `factor` 1 to 10',
        placeholder='INITIAL[,FACTOR[,MAX]]',
        feature=Feature.RETRIES,
    ),
    Setting(
        'ordered_groups',
        '_ordered_groups',
        bool,
        'switch',
        'messages of a group are given in their order, and to one claim or consumer at a time',
        'no',
        feature=Feature.GROUPS,
    ),
    Setting(
        'fair_groups',
        '_fair_groups',
        bool,
        'switch',
        'claims take from the groups in turn, so that a large one does not hold up the others',
        'no',
        feature=Feature.GROUPS,
    ),
    Setting(
        'trace_context',
        '_trace_context',
        bool,
        'switch',
        'the trace of a post (W3C Trace Context) is stored with its messages, as attributes',
        'no',
        feature=Feature.ATTRIBUTES,
    ),
    Setting(
        'retry_policy',
        '_retry_policy',
        RetryPolicy,
        'object',
        'when a notification that failed is sent to a webhook again',
        'after 1, 2, 4, 8, 16, 32, 60 and 60 s',
        allowed='members as in [Webhooks](webhooks.md)',
        placeholder='JSON',
        for_topics=True,
        is_upstreams=True,
    ),
    Setting(
        'flavor',
        '_flavor',
        str,
        'text',
        'messages are kept in the pools of this flavor; for a new queue, on a server with pools',
        'any pool',
        placeholder='FLAVOR',
        is_upstreams=True,
    ),
)

ReservedMetadata = msgspec.defstruct(
    'ReservedMetadata', [(one.key, one.type | None, None) for one in SETTINGS]
)
"""The types of the settings in the metadata; ranges are checked by upstream's validator."""

NEEDED = {one.key: one.feature for one in SETTINGS if one.feature is not None}
"""The feature that a setting needs of the store."""
