"""The choice of the driver for Redis, and the native driver's own options."""

from __future__ import annotations

from oslo_config import cfg

from zaqar_gevent.storage.redis.durability import Durability

DRIVERS_GROUP = 'drivers'
MESSAGE_GROUP = 'drivers:message_store:redis'
MANAGEMENT_GROUP = 'drivers:management_store:redis'

NATIVE, UPSTREAM = 'native', 'upstream'

DRIVERS_OPTS = [
    cfg.StrOpt(
        'redis_driver',
        default=NATIVE,
        choices=[
            (NATIVE, "this project's own, on upstream's keys and formats; needs Redis 5 or later"),
            (UPSTREAM, "upstream's"),
        ],
        help='Which driver serves message_store = redis, management_store = redis and pools whose '
        'URI begins with redis://.',
    )
]

_DURABILITY = cfg.StrOpt(
    'durability',
    default=Durability.MEMORY.value,
    choices=[
        (Durability.MEMORY.value, 'whatever Redis does by itself'),
        (Durability.REPLICA.value, 'a replica has received the write (WAIT)'),
        (
            Durability.FSYNC.value,
            "the write is on the server's disk (WAITAOF, from Redis 7.2 on, or appendfsync always)",
        ),
    ],
    help='When the native driver acknowledges a write. If that takes too long (0.8 of the '
    'socket_timeout in the URI for replica, 2.5 s for fsync), the answer is 503 and says that the '
    'outcome is not known; a post that has a post_id can be repeated. A server '
    'that cannot do what is chosen is refused at start.',
)

MANAGEMENT_OPTS = [_DURABILITY]

MESSAGE_OPTS = [
    _DURABILITY,
    cfg.BoolOpt(
        'shared_with_upstream',
        default=True,
        help="Whether upstream's servers work on this Redis as well. If they do not, set it to "
        'false. The native driver remembers where the first free message of a queue may be: claims '
        'and lists take the same time however many messages are claimed. With true it looks at '
        "them all again each second, or less often the more there are, since upstream's servers do "
        'not always leave a trace when they make messages free.',
    ),
    cfg.IntOpt(
        'idempotency_seconds',
        default=300,
        min=0,
        help='For how long the post_id of a post is remembered by the native driver: posted again '
        'within this time, its messages are not stored a second time. With 0, posts with a post_id '
        'are refused.',
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options by group, for `oslo.config.opts`."""
    return [
        (DRIVERS_GROUP, DRIVERS_OPTS),
        (MESSAGE_GROUP, MESSAGE_OPTS),
        (MANAGEMENT_GROUP, MANAGEMENT_OPTS),
    ]
