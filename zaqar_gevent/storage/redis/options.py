"""Which driver serves Redis, and the options of the native one beside upstream's."""

from __future__ import annotations

from oslo_config import cfg

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

MESSAGE_OPTS = [
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
    return [(DRIVERS_GROUP, DRIVERS_OPTS), (MESSAGE_GROUP, MESSAGE_OPTS)]
