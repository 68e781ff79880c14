"""Every command: what it does in a line, its arguments, and the function that runs it."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

from zaqar_gevent.terminal.completion import queue_names, topic_names
from zaqar_gevent.terminal.settings import add_settings
from zaqar_gevent.terminal.values import (
    attribute,
    conditions,
    count,
    moment,
    not_negative,
    pair,
    positive,
    rate,
    whole,
)


class Command(NamedTuple):
    """A command.

    function: `module:name` in this package, imported only when the command runs. add_arguments:
    adds its own arguments to a parser. details: more about it, for its help.
    """

    summary: str
    function: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    details: str = ''


_Adding = Callable[[argparse.ArgumentParser], None]

_NAMES = {'queue': queue_names, 'topic': topic_names}
_SHARED = 'A queue and a topic of one name have the same messages and subscriptions.'
_YES = 'do not ask, even on a terminal'
_TTL = '60 to 1209600 unless the server is configured otherwise'
_LEASE = '60 to 43200 unless the server is configured otherwise'


def _add_post(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument(
        'bodies',
        nargs='*',
        metavar='BODY',
        default=[],
        help='message body: JSON if it parses, otherwise text. Without any, each line of the '
        'standard input is one. JSON with an integer outside -2^63 to 2^63-1 or with half of a '
        'surrogate pair is refused; --text posts it as text',
    )
    parser.add_argument(
        '--file', metavar='FILE', help='post each line of FILE; - is the standard input'
    )
    parser.add_argument('--text', action='store_true', help='treat every body as text')
    parser.add_argument(
        '--ttl',
        type=whole,
        metavar='SECONDS',
        help=f'how long the messages are kept, {_TTL} (default: what the queue says, or 3600)',
    )
    parser.add_argument(
        '--delay',
        type=whole,
        metavar='SECONDS',
        help='how long the messages reach nobody, 0 to 900 (default: what the queue says, or 0)',
    )
    parser.add_argument(
        '--deliver-at',
        type=moment,
        metavar='TIME',
        help='instead of --delay: when the messages can be seen, as 2026-12-01T06:00:00Z (RFC 3339)'
        ' or in seconds since the epoch; at most 14 days ahead unless the server is configured '
        'otherwise. --ttl counts from then on',
    )
    parser.add_argument(
        '--attribute',
        type=attribute,
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='an attribute of each message; may be given more than once. A name has letters, '
        'digits and characters of _.-',
    )
    parser.add_argument(
        '--group',
        metavar='NAME',
        help='the group of each message, 1 to 128 characters. In a queue with _ordered_groups one '
        'worker at a time has messages of a group, in their order',
    )
    _add_topic(parser)
    parser.add_argument(
        '--batch',
        type=count,
        default=50,
        metavar='N',
        help='messages in one request at most (default: 50)',
    )


def _add_list(parser: argparse.ArgumentParser) -> None:
    action = parser.add_argument(
        'queue', nargs='?', metavar='QUEUE', help='(default: list the queues)'
    )
    _completed(action, queue_names)
    _add_limit(parser, 'list at most N (default: all)')
    parser.add_argument('--marker', metavar='ID', help='begin after this message or queue')
    parser.add_argument('--unclaimed', action='store_true', help='leave out claimed messages')
    parser.add_argument('--delayed', action='store_true', help='list delayed messages as well')
    parser.add_argument(
        '--topic', action='store_true', help='of a topic, not a queue; without a name: the topics'
    )


def _add_get(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument('ids', nargs='+', metavar='ID', help='of a message, as `list` prints it')
    _add_topic(parser)


def _add_claim(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    _add_limit(parser, 'claim at most N, 1 to 20 (default: 10)', default=10)
    _add_lease(parser)
    parser.add_argument(
        '--wait',
        type=whole,
        metavar='SECONDS',
        help='wait up to SECONDS if no message is free (default: 0, do not wait)',
    )
    parser.add_argument(
        '--delete', action='store_true', help='delete each message after it has been printed'
    )
    parser.add_argument(
        '--release',
        action='append',
        default=[],
        metavar='CLAIM_ID',
        help='claim nothing; give the messages of this claim back, so that others get them. May '
        'be given more than once. The id is the claim_id of the JSON output (--format json)',
    )
    parser.add_argument(
        '--delay',
        type=whole,
        metavar='SECONDS',
        help='with --release: how long nobody else gets the messages, 0 to 900 (default: what the '
        'queue says by its --retry-delay, or 0)',
    )


def _add_tail(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--from-start',
        dest='marker',
        action='store_const',
        const='',
        help='begin with the oldest message of the queue (default: with the next one posted)',
    )
    start.add_argument('--marker', metavar='ID', help='begin after this message')
    _add_limit(parser, 'stop after N messages (default: never)')
    _add_filter(parser, 'print only messages whose attributes meet this')
    _add_topic(parser)


def _add_consume(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument(
        '--exec',
        required=True,
        metavar='CMD',
        help='a command of the shell, run for each message, which is a JSON line on its standard '
        'input. Success (exit status 0) deletes the message; failure gives it back',
    )
    parser.add_argument(
        '--body',
        action='store_true',
        help='the input is the body alone: text as it is, all else as JSON',
    )
    parser.add_argument(
        '--jobs', type=count, default=1, metavar='N', help='run N commands at a time (default: 1)'
    )
    _add_limit(parser, 'stop after N messages (default: never)')
    parser.add_argument(
        '--attempts',
        type=count,
        default=1,
        metavar='N',
        help='run the command up to N times for a message, until it succeeds. The message is kept '
        'from others meanwhile (default: 1)',
    )
    parser.add_argument(
        '--backoff',
        type=not_negative,
        default=1.0,
        metavar='SECONDS',
        help='wait before the second attempt; twice as long before each further one, up to 300 '
        '(default: 1)',
    )
    action = parser.add_argument(
        '--dead-letter-queue',
        metavar='QUEUE',
        help='after the last attempt, move the message there (default: give it back, so that this '
        'worker or another gets it again). `redrive` can move it back if the settings of the '
        'queue name this one as well, and otherwise with --target',
    )
    _completed(action, queue_names)
    parser.add_argument(
        '--pause',
        type=not_negative,
        default=1.0,
        metavar='SECONDS',
        help='wait before a message whose command failed is given back (default: 1)',
    )
    _add_lease(parser)


def _add_stats(parser: argparse.ArgumentParser) -> None:
    action = parser.add_argument('queue', nargs='?', metavar='QUEUE', help='(default: all queues)')
    _completed(action, queue_names)
    parser.add_argument(
        '--watch',
        type=positive,
        nargs='?',
        const=2.0,
        metavar='SECONDS',
        help='count every SECONDS (default: 2) and show the changes per second',
    )
    parser.add_argument(
        '--topic', action='store_true', help='of a topic, not a queue; without a name: of all'
    )


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    pass


def _add_ping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--count', type=count, default=1, metavar='N', help='ping N times (default: 1)'
    )
    parser.add_argument(
        '--interval',
        type=not_negative,
        default=1.0,
        metavar='SECONDS',
        help='time between two pings (default: 1)',
    )


def _add_named_list(kind: str, parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(kind=kind)
    parser.add_argument('--name', metavar='TEXT', help='only names that contain this')
    parser.add_argument('--marker', metavar='NAME', help='begin after this name')
    _add_limit(parser, 'list at most N (default: all)')
    parser.add_argument('--details', action='store_true', help='print the settings as well')


def _add_create(kind: str, parser: argparse.ArgumentParser) -> None:
    _add_name(kind, parser)
    add_settings(parser, kind)


def _add_set(kind: str, parser: argparse.ArgumentParser) -> None:
    _add_create(kind, parser)
    parser.add_argument(
        '--unset',
        action='append',
        default=[],
        metavar='NAME',
        help='take a setting or key away, so that its default applies: the name of an option, as '
        'default-ttl, or a key of your own; may be given more than once',
    )


def _add_name(kind: str, parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(kind=kind)
    action = parser.add_argument('name', metavar='NAME')
    if kind in _NAMES:
        _completed(action, _NAMES[kind])


def _add_delete(kind: str, parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(kind=kind)
    _completed(parser.add_argument('names', nargs='+', metavar='NAME'), _NAMES[kind])
    parser.add_argument('--yes', action='store_true', help=_YES)


def _add_purge(kind: str, parser: argparse.ArgumentParser) -> None:
    _add_name(kind, parser)
    parser.add_argument(
        '--subscriptions', action='store_true', help='delete its subscriptions as well'
    )
    parser.add_argument('--yes', action='store_true', help=_YES)


def _add_subscriptions(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_limit(parser, 'list at most N (default: all)')


def _add_subscribe(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument('uri', metavar='URI', help='http:, https:, mailto: or trust+http(s):')
    _add_subscription_ttl(parser, 'default: 3600')
    _add_options(parser)
    _add_filter(parser, 'send only messages whose attributes meet this')


def _add_subscription_set(parser: argparse.ArgumentParser) -> None:
    _add_subscription(parser)
    parser.add_argument('--uri', metavar='URI', help='where the messages go from now on')
    _add_subscription_ttl(parser, 'counted from now; default: as before')
    _add_options(parser)
    _add_filter(
        parser,
        'send only messages whose attributes meet this. With --option or --filter, the options '
        'given replace all there are',
    )


def _add_subscription_ttl(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        '--ttl',
        type=count,
        metavar='SECONDS',
        help=f'how long it lives, {_TTL} ({default})',
    )


def _add_subscription_delete(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument('subscriptions', nargs='+', metavar='ID', help='of a subscription')
    parser.add_argument('--yes', action='store_true', help=_YES)


def _add_subscription(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument('subscription', metavar='ID', help='of a subscription')


def _add_redrive_start(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    action = parser.add_argument(
        '--target',
        metavar='QUEUE',
        help='move all of them there (default: each to where it is from; those that do not say it '
        'are left)',
    )
    _completed(action, queue_names)
    _add_limit(parser, 'move at most N messages (default: all)')
    parser.add_argument(
        '--rate',
        type=rate,
        metavar='N',
        help='move at most N messages a second, 0.01 to 100000 (default: as fast as it goes)',
    )
    parser.add_argument(
        '--no-wait', action='store_true', help='return when it has begun; the server goes on'
    )


def _add_redrive_list(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    _add_limit(parser, 'list at most N (default: all)')


def _add_redrive(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument('redrive', metavar='ID', help='of a redrive, as `redrive list` prints it')


def _add_source(parser: argparse.ArgumentParser) -> None:
    action = parser.add_argument('source', metavar='QUEUE', help='or a topic, with --topic')
    _completed(action, queue_names)
    _add_topic(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--option',
        type=pair,
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='an option, with JSON or else text as its value; may be given more than once',
    )


def _add_filter(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument(
        '--filter',
        type=conditions,
        action='append',
        default=[],
        metavar='FILTER',
        help=f'{told}: NAME=VALUE, or a JSON object such as \'{{"type": ["order", "refund"], '
        '"region": {"prefix": "eu-"}, "tenant": {"exists": true}}\'. May be given more than once; '
        'all must be met',
    )


def _add_resources(kind: str, parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(kind=kind)
    _add_limit(parser, 'list at most N (default: all)')


def _add_resource(kind: str, parser: argparse.ArgumentParser, *, is_new: bool) -> None:
    _add_name(kind, parser)
    if kind == 'flavor':
        parser.add_argument(
            '--pool',
            action='append',
            required=is_new,
            metavar='POOL',
            help='a pool of the flavor; may be given more than once',
        )
        return
    parser.add_argument(
        '--uri',
        required=is_new,
        metavar='URI',
        help='of the store, as redis://127.0.0.1:6379?dbid=1 or sqlite:////var/lib/zaqar/1.sqlite',
    )
    parser.add_argument(
        '--weight',
        type=whole,
        default=100 if is_new else None,
        metavar='N',
        help='how likely new queues get this pool, compared to the others; 0 for none'
        + (' (default: 100)' if is_new else ''),
    )
    parser.add_argument('--flavor', metavar='FLAVOR', help='the flavor that the pool belongs to')
    _add_options(parser)


def _add_resource_delete(kind: str, parser: argparse.ArgumentParser) -> None:
    _add_name(kind, parser)
    parser.add_argument('--yes', action='store_true', help=_YES)


def _add_queue(parser: argparse.ArgumentParser) -> None:
    _completed(parser.add_argument('queue', metavar='QUEUE'), queue_names)


def _completed(action: argparse.Action, names: Callable[..., list[str]]) -> None:
    """Have a shell complete an argument by what the server knows."""
    action.completer = names  # type: ignore[attr-defined]


def _add_topic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--topic', action='store_true', help='it is a topic, not a queue')


def _add_limit(parser: argparse.ArgumentParser, told: str, default: int | None = None) -> None:
    parser.add_argument('--limit', type=count, default=default, metavar='N', help=told)


def _add_lease(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--ttl',
        type=whole,
        metavar='SECONDS',
        help=f'how long a claim holds, {_LEASE} (default: 300)',
    )
    parser.add_argument(
        '--grace',
        type=whole,
        metavar='SECONDS',
        help=f'extra TTL given to claimed messages, so that they outlive the claim, {_LEASE} '
        '(default: 60)',
    )


def _of_kind(kind: str) -> dict[tuple[str, ...], Command]:
    """The commands of queues or topics."""

    def adding(function: Callable[[str, argparse.ArgumentParser], None]) -> _Adding:
        return functools.partial(function, kind)

    article = f'a {kind}'
    return {
        (kind, 'list'): Command(f'List the {kind}s.', 'queues:run_list', adding(_add_named_list)),
        (kind, 'create'): Command(
            f'Create {article}, with settings.', 'queues:run_create', adding(_add_create)
        ),
        (kind, 'show'): Command(
            f'Show the settings of {article}, and how many messages it holds.',
            'queues:run_show',
            adding(_add_name),
        ),
        (kind, 'set'): Command(
            f'Change the settings of {article}.', 'queues:run_set', adding(_add_set)
        ),
        (kind, 'delete'): Command(
            f'Delete {kind}s with their messages.',
            'queues:run_delete',
            adding(_add_delete),
            'It asks first if it runs on a terminal. This cannot be undone. Subscriptions stay; '
            f'`{kind} purge --subscriptions` deletes them. {_SHARED}',
        ),
        (kind, 'purge'): Command(
            f'Delete the messages of {article}, but not the {kind}'
            f'{"; claimed messages stay" if kind == "queue" else ""}.',
            'queues:run_purge',
            adding(_add_purge),
            f'It asks first if it runs on a terminal. This cannot be undone. {_SHARED}',
        ),
    }


def _of_resource(kind: str) -> dict[tuple[str, ...], Command]:
    """The commands of pools or flavors."""
    only = (
        'Only on a server with pools (pooling and admin_mode in its zaqar.conf). By default it '
        'takes the role admin: by a token, or by --roles admin if there is no authentication.'
    )
    add = functools.partial(_add_resource, kind)
    return {
        (kind, 'list'): Command(
            f'List the {kind}s.',
            'resources:run_list',
            functools.partial(_add_resources, kind),
            only,
        ),
        (kind, 'show'): Command(
            f'Show a {kind}.', 'resources:run_show', functools.partial(_add_name, kind), only
        ),
        (kind, 'create'): Command(
            f'Create a {kind}.',
            'resources:run_create',
            functools.partial(add, is_new=True),
            only,
        ),
        (kind, 'set'): Command(
            f'Change a {kind}.', 'resources:run_set', functools.partial(add, is_new=False), only
        ),
        (kind, 'delete'): Command(
            f'Delete a {kind}; what its stores hold stays there.',
            'resources:run_delete',
            functools.partial(_add_resource_delete, kind),
            only,
        ),
    }


COMMANDS: dict[tuple[str, ...], Command] = {
    ('post',): Command('Post messages.', 'posting:run', _add_post),
    ('list',): Command('List the messages of a queue, or the queues.', 'listing:run', _add_list),
    ('get',): Command('Print messages by their ids.', 'getting:run', _add_get),
    ('claim',): Command(
        'Claim messages and print them, or give a claim back.', 'claiming:run', _add_claim
    ),
    ('tail',): Command('Print messages as they are posted.', 'tailing:run', _add_tail),
    ('consume',): Command(
        'Run a command for each message.',
        'consuming:run',
        _add_consume,
        'CMD also gets the variables ZAQAR_QUEUE, ZAQAR_MESSAGE_ID, ZAQAR_ATTEMPT (from 1), '
        'ZAQAR_GROUP if the message has a group, and '
        'ZAQAR_ATTRIBUTE_NAME for each attribute: its name in upper case, with _ for . and -.',
    ),
    ('stats',): Command('Count the messages of queues.', 'statistics:run', _add_stats),
    ('ping',): Command(
        'Say how long the server takes to answer, and how it was reached.', 'ping:run', _add_ping
    ),
    ('quota',): Command('Print what the project uses of its quotas.', 'quotas:run', _add_nothing),
    **_of_kind('queue'),
    **_of_kind('topic'),
    ('redrive', 'start'): Command(
        'Move the dead letters of a queue back, and show how far it is.',
        'redrives:run_start',
        _add_redrive_start,
        '`zaqar-gevent redrive QUEUE` does the same. The server goes on if this command is ended. '
        'Dead letters that do not say where they are from are only moved with --target, and '
        'otherwise left; then the exit status is 1. Such are those that a client has posted there, '
        'as `consume` does where the settings of its queue do not name the dead-letter queue.',
    ),
    ('redrive', 'list'): Command(
        'List the redrives of a queue.', 'redrives:run_list', _add_redrive_list
    ),
    ('redrive', 'show'): Command('Show how far a redrive is.', 'redrives:run_show', _add_redrive),
    ('redrive', 'cancel'): Command(
        'Cancel a redrive; what it has moved stays moved.', 'redrives:run_cancel', _add_redrive
    ),
    ('subscription', 'list'): Command(
        'List the subscriptions of a queue or topic.', 'subscriptions:run_list', _add_subscriptions
    ),
    ('subscription', 'create'): Command(
        'Have each message that is posted sent to a URI.',
        'subscriptions:run_create',
        _add_subscribe,
    ),
    ('subscription', 'show'): Command(
        'Show a subscription, and how its deliveries go.',
        'subscriptions:run_show',
        _add_subscription,
    ),
    ('subscription', 'set'): Command(
        'Change where a subscription leads, how long it lives, or its options.',
        'subscriptions:run_set',
        _add_subscription_set,
    ),
    ('subscription', 'delete'): Command(
        'End subscriptions.', 'subscriptions:run_delete', _add_subscription_delete
    ),
    **_of_resource('pool'),
    **_of_resource('flavor'),
}

GROUPS = {
    'queue': 'Create, show, change and delete queues.',
    'topic': 'Create, show, change and delete topics.',
    'redrive': 'Move dead letters back to where they are from.',
    'subscription': 'Have messages sent to web hooks and mail addresses.',
    'pool': 'Manage the stores of a server with pools; for operators.',
    'flavor': 'Manage groups of pools; for operators.',
}
