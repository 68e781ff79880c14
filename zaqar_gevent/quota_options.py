"""The options `[quota]`: how much each project may have, and other limits for some projects.

The names are fit to be registered as limits of oslo.limit's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from oslo_config import cfg

GROUP = 'quota'
UNLIMITED = -1


class ProjectLimits(NamedTuple):
    """How much a project may have; None is unlimited.

    zaqar_queues: queues. zaqar_messages_per_queue: messages of one queue. zaqar_bytes: bytes of the
    bodies and attributes of all messages. zaqar_subscriptions: subscriptions of all queues.
    zaqar_requests_per_second, zaqar_connections: requests, and WebSockets, of one process.
    """

    zaqar_queues: int | None = None
    zaqar_messages_per_queue: int | None = None
    zaqar_bytes: int | None = None
    zaqar_subscriptions: int | None = None
    zaqar_requests_per_second: int | None = None
    zaqar_connections: int | None = None


class Limits(NamedTuple):
    """default: of each project. overrides: of those that have limits of their own."""

    default: ProjectLimits = ProjectLimits()
    overrides: Mapping[str, ProjectLimits] = {}

    def of(self, project: str | None) -> ProjectLimits:
        """The limits of a project."""
        return self.overrides.get(project or '', self.default)

    def limit_any(self, name: str) -> bool:
        """Whether any project has this limit."""
        return any(
            getattr(one, name) is not None for one in (self.default, *self.overrides.values())
        )


ALL_OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        'zaqar_queues',
        default=UNLIMITED,
        min=UNLIMITED,
        help='The most queues of a project; -1 for no limit. One more is answered with 429. '
        'Topics are not counted. Requests that create queues at the same moment in different '
        'processes may each create one more.',
    ),
    cfg.IntOpt(
        'zaqar_messages_per_queue',
        default=UNLIMITED,
        min=UNLIMITED,
        help='The most messages of a queue, claimed and delayed ones included; -1 for no limit. '
        'A post that would exceed it is answered with 429, and one of more messages than that '
        'with 413. Posts at the same moment through different processes may exceed it by what '
        'they post. Dead letters are not refused. The stores sqlite and postgresql count '
        'messages; with others a server with this limit does not start.',
    ),
    cfg.IntOpt(
        'zaqar_bytes',
        default=UNLIMITED,
        min=UNLIMITED,
        help='The most bytes that the messages of a project have together, of their bodies and '
        'attributes as they are stored; -1 for no limit. A post that would exceed it is answered '
        'with 429, and one of more bytes than that with 413. Posts at the same moment through '
        'different processes may exceed it by what they post. The stores sqlite and postgresql '
        'count bytes, and the native driver of redis where shared_with_upstream is false; with '
        'others, and with pooling, a server with this limit does not start. All servers of a '
        'store must have it. When it is set for the first time, the first server to start counts '
        'what is there.',
    ),
    cfg.IntOpt(
        'zaqar_subscriptions',
        default=UNLIMITED,
        min=UNLIMITED,
        help='The most subscriptions of all queues of a project, those of WebSocket connections '
        'included; -1 for no limit. One more is answered with 429. Requests at the same moment '
        'through different processes may each make one more. The same stores count them.',
    ),
    cfg.IntOpt(
        'zaqar_requests_per_second',
        default=UNLIMITED,
        min=UNLIMITED,
        help='The most requests of a project that one process performs in a second, over all '
        'transports together; -1 for no limit. One more is answered with 429. After a pause, as '
        'many as in one second may come at once.',
    ),
    cfg.IntOpt(
        'zaqar_connections',
        default=UNLIMITED,
        min=UNLIMITED,
        help='The most WebSocket connections of a project to one process; -1 for no limit. '
        'Requests of one more are answered with 429. A connection counts for the project of its '
        'last request, so before the first it does not count.',
    ),
    cfg.MultiStrOpt(
        'override',
        default=[],
        sample_default='demo: zaqar_queues=100, zaqar_messages_per_queue=-1',
        help='Other limits of one project: its id, a colon, and limits by name, separated by '
        'commas. What is not named is as for all projects. May be given several times. Like the '
        'other options of this group it is read when the server starts.',
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The options by group."""
    return [(GROUP, ALL_OPTS)]


def read(conf: cfg.ConfigOpts) -> Limits:
    """The limits that are configured; raises `ValueError` for an override that is wrong."""
    section = conf[GROUP]
    default = ProjectLimits(*(_limit(section[name]) for name in ProjectLimits._fields))
    return Limits(default, dict(_override(text, default) for text in section.override))


def _limit(value: int) -> int | None:
    return None if value == UNLIMITED else value


def _override(text: str, default: ProjectLimits) -> tuple[str, ProjectLimits]:
    project, colon, limits = text.rpartition(':')
    if not colon or not project.strip():
        raise ValueError(f'[quota] override = {text}: give a project, a colon and limits')
    return project.strip(), default._replace(**dict(_named(one, text) for one in limits.split(',')))


def _named(text: str, override: str) -> tuple[str, int | None]:
    name, _, value = (part.strip() for part in text.partition('='))
    if name not in ProjectLimits._fields:
        known = ', '.join(ProjectLimits._fields)
        raise ValueError(f'[quota] override = {override}: {name!r} is not one of {known}')
    try:
        number = int(value)
    except ValueError:
        number = UNLIMITED - 1
    if number < UNLIMITED:
        raise ValueError(
            f'[quota] override = {override}: {name} must be an integer, at least {UNLIMITED}'
        )
    return name, _limit(number)
