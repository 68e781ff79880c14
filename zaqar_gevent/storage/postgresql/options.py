"""Configuration of the stores in PostgreSQL: one group for messages, one for management."""

from __future__ import annotations

from oslo_config import cfg

from zaqar_gevent.storage.core import clocks

MESSAGE_GROUP = 'drivers:message_store:postgresql'
MANAGEMENT_GROUP = 'drivers:management_store:postgresql'

_SHARED_OPTS = [
    clocks.OPTION,
    cfg.StrOpt(
        'uri',
        secret=True,
        help='The database, as postgresql://user@host:5432/database. Several hosts are separated '
        'by commas; the one that can be written is used. Options of libpq follow a question mark: '
        'sslmode, sslrootcert, passfile, service, connect_timeout (default: 3 seconds a host) and '
        'others. Required.',
    ),
    cfg.StrOpt(
        'schema',
        default='zaqar',
        help='The schema of the database in which the tables are. It is created if it does not '
        'exist and the user may create it. Servers that share it share all messages.',
    ),
    cfg.BoolOpt(
        'migrate_at_start',
        default=True,
        help='Whether a server that starts creates the tables, and changes those of an older '
        'version. If not, it refuses to start until the command "zaqar-gevent db migrate" has '
        'been run.',
    ),
    cfg.FloatOpt(
        'timeout',
        default=5.0,
        min=0.1,
        help='For how many seconds an answer of PostgreSQL is waited for, which includes that of '
        'a synchronous standby. After that the connection is given up, and requests are answered '
        'with 503.',
    ),
    cfg.BoolOpt(
        'prepared_statements',
        default=True,
        help='Whether statements are prepared. Set it to false behind a pool of connections that '
        'are shared by transaction and that loses prepared statements, such as PgBouncer before '
        '1.21: pool_mode = transaction. It costs PostgreSQL a few microseconds a call.',
    ),
]

MESSAGE_OPTS = [
    *_SHARED_OPTS,
    cfg.IntOpt(
        'idempotency_seconds',
        default=300,
        min=0,
        help='For how long the post_id of a post is remembered: posted again within this time, '
        'its messages are not stored a second time. With 0, posts with a post_id are refused.',
    ),
]

MANAGEMENT_OPTS = _SHARED_OPTS


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options by group, for `oslo.config.opts`."""
    return [(MESSAGE_GROUP, MESSAGE_OPTS), (MANAGEMENT_GROUP, MANAGEMENT_OPTS)]
