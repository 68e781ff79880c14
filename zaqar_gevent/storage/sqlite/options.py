"""Configuration of the embedded store: one group for messages, one for management."""

from __future__ import annotations

from oslo_config import cfg

MESSAGE_GROUP = 'drivers:message_store:sqlite'
MANAGEMENT_GROUP = 'drivers:management_store:sqlite'

SCHEME = 'sqlite:///'

_SHARED_OPTS = [
    cfg.StrOpt(
        'uri',
        help='The SQLite file, as sqlite:////absolute/path or sqlite:///relative/path. It is '
        'created when it does not exist; its directory must. Messages and management may '
        'share one file. Required.',
    ),
    cfg.StrOpt(
        'synchronous',
        default='full',
        choices=[
            ('full', 'every acknowledged write has been synced to disk'),
            (
                'normal',
                'acknowledged writes survive a crash of the process; when power fails or the '
                'operating system crashes, all since the last checkpoint are lost',
            ),
        ],
        help='What an acknowledged write survives.',
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


class NotConfigured(cfg.ConfigFileValueError):
    """The `uri` option is missing or does not name a file."""


def get_path(uri: str | None, group: str) -> str:
    """The path of the file that `uri` names; raises `NotConfigured` when it names none."""
    if not uri:
        raise NotConfigured(f'The option uri is not set in the group [{group}].')
    path = find_path(uri)
    if path is None:
        raise NotConfigured(
            f'The option uri in the group [{group}] must be sqlite:////absolute/path or '
            f'sqlite:///relative/path, not {uri!r}.'
        )
    return path


def find_path(uri: str) -> str | None:
    """The path of the file that `uri` names; None when it names none."""
    path = uri[len(SCHEME) :].partition('?')[0]
    return path if uri.startswith(SCHEME) and path and path != ':memory:' else None
