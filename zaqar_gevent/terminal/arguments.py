"""What the subcommands of `zaqar-gevent` are told by arguments and by the environment."""

from __future__ import annotations

import argparse
import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DEFAULT_URL = 'http://127.0.0.1:8888'
ENCODINGS = ('msgpack', 'json')
TRANSPORTS = ('auto', 'websocket', 'rest')

_ENVIRONMENT = """environment:
  ZAQAR_URL, ZAQAR_PROJECT, ZAQAR_TOKEN, ZAQAR_CLIENT_ID, ZAQAR_TRANSPORT and ZAQAR_ENCODING stand
  for the options of these names.

exit status:
  0 done; 1 the server refused, or a command failed; 2 wrong usage; 3 the server cannot be reached
  or does not answer; 130 interrupted; 141 nobody reads the output any more; 143 terminated
"""


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> argparse.Namespace:
    """Read the arguments of a subcommand, its name first.

    environment: what options that are not given are taken from; by default the process's.
    Raises SystemExit with status 2, after a line about what is wrong, or 0 after `--help`.
    """
    environment = os.environ if environment is None else environment
    summary, add_arguments = _COMMANDS[argv[0]]
    parser = argparse.ArgumentParser(
        prog=f'zaqar-gevent {argv[0]}',
        description=summary,
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=argv[0])
    add_arguments(parser)
    _add_connection(parser, environment)
    return parser.parse_intermixed_args(argv[1:])


def _add_connection(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = parser.add_argument_group('connection')

    def add(name: str, default: str | None, **options: Any) -> None:
        variable = f'ZAQAR_{name.upper().replace("-", "_")}'
        value = environment.get(variable) or default
        choices = options.get('choices')
        if choices and value not in choices:
            parser.error(f'{variable} is {value!r}, and not one of {", ".join(choices)}')
        group.add_argument(f'--{name}', default=value, **options)

    told = f'where the server is (default: {DEFAULT_URL})'
    add('url', DEFAULT_URL, type=_printable, help=told)
    told = 'the project of the queues (default: demo)'
    add('project', 'demo', type=_printable, help=told)
    told = 'the Keystone token; others can read the command line, so better use ZAQAR_TOKEN'
    add('token', None, type=_printable, help=told)
    add('client-id', None, type=_uuid, help='a UUID (default: a new one)')
    add(
        'transport',
        'auto',
        choices=TRANSPORTS,
        help='auto: WebSocket, or REST where WebSockets do not get through (default: auto)',
    )
    add('encoding', 'msgpack', choices=ENCODINGS, help='of WebSocket messages (default: msgpack)')
    told = 'wait so long for an answer or a connection (default: 10)'
    group.add_argument('--timeout', type=_positive, default=10.0, metavar='SECONDS', help=told)
    group.add_argument(
        '--json', action='store_true', help='print JSON lines on a terminal too, as in a pipe'
    )


def _add_post(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument(
        'bodies',
        nargs='*',
        metavar='BODY',
        default=[],
        help='JSON, or else text; without any, each line of the standard input is one. JSON with '
        'an integer outside -2^63 to 2^63-1 or with half of a surrogate pair is refused; --text '
        'posts it as text',
    )
    parser.add_argument(
        '--file', metavar='FILE', help='post each line of FILE; - is the standard input'
    )
    parser.add_argument('--text', action='store_true', help='treat every body as text')
    parser.add_argument(
        '--ttl',
        type=_whole,
        metavar='SECONDS',
        help='how long messages are kept, 60 or more, by default at most 1209600 '
        "(default: the queue's own, or an hour)",
    )
    parser.add_argument(
        '--delay',
        type=_whole,
        metavar='SECONDS',
        help='how long the messages reach nobody, 0 to 900 (default: as long as the queue says)',
    )
    parser.add_argument(
        '--batch',
        type=_count,
        default=50,
        metavar='N',
        help='N messages in one request (default: 50)',
    )


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('queue', nargs='?', metavar='QUEUE', help='(default: list the queues)')
    parser.add_argument('--limit', type=_count, metavar='N', help='list at most N')
    parser.add_argument('--marker', metavar='ID', help='begin after this message or queue')
    parser.add_argument('--unclaimed', action='store_true', help='leave out claimed messages')
    parser.add_argument('--delayed', action='store_true', help='list delayed messages as well')


def _add_claim(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument(
        '--limit', type=_count, default=10, metavar='N', help='claim at most N (default: 10)'
    )
    _add_lease(parser)
    parser.add_argument(
        '--wait',
        type=_whole,
        metavar='SECONDS',
        help='wait up to SECONDS if no message is free (default: do not wait)',
    )
    parser.add_argument(
        '--delete', action='store_true', help='delete each message after it has been printed'
    )


def _add_tail(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        '--from-start',
        dest='marker',
        action='store_const',
        const='',
        help='begin with the oldest message of the queue',
    )
    start.add_argument('--marker', metavar='ID', help='begin after this message')
    parser.add_argument('--limit', type=_count, metavar='N', help='stop after N messages')


def _add_consume(parser: argparse.ArgumentParser) -> None:
    _add_queue(parser)
    parser.add_argument(
        '--exec',
        required=True,
        metavar='CMD',
        help='a command of the shell, run for each message, which is a JSON line on its standard '
        'input. Success deletes the message; failure gives it back',
    )
    parser.add_argument(
        '--body',
        action='store_true',
        help='the input is the body alone: text as it is, all else as JSON',
    )
    parser.add_argument(
        '--jobs', type=_count, default=1, metavar='N', help='run N commands at a time (default: 1)'
    )
    parser.add_argument('--limit', type=_count, metavar='N', help='stop after N messages')
    parser.add_argument(
        '--pause',
        type=_not_negative,
        default=1.0,
        metavar='SECONDS',
        help='wait before a message whose command failed is given back (default: 1)',
    )
    _add_lease(parser)


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('queue', nargs='?', metavar='QUEUE', help='(default: all queues)')
    parser.add_argument(
        '--watch',
        type=_positive,
        nargs='?',
        const=2.0,
        metavar='SECONDS',
        help='count every SECONDS (default: 2) and show the changes per second',
    )


def _add_ping(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--count', type=_count, default=1, metavar='N', help='ping N times (default: 1)'
    )
    parser.add_argument(
        '--interval',
        type=_not_negative,
        default=1.0,
        metavar='SECONDS',
        help='time between two pings (default: 1)',
    )


def _add_queue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('queue', metavar='QUEUE')


def _add_lease(parser: argparse.ArgumentParser) -> None:
    limits = '60 or more, by default at most 43200'
    parser.add_argument(
        '--ttl',
        type=_whole,
        metavar='SECONDS',
        help=f'how long a claim holds, {limits} (default: 300)',
    )
    parser.add_argument(
        '--grace',
        type=_whole,
        metavar='SECONDS',
        help=f'how long messages live after the claim has ended, {limits} (default: 60)',
    )


def _printable(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError('only printable ASCII is allowed')
    return text


def _uuid(text: str) -> str:
    return str(uuid.UUID(text))


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is less than 1')
    return number


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f'{number} is less than 0')
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not a number of seconds')
    return number


def _positive(text: str) -> float:
    number = _not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError('0 is no time at all')
    return number


# What argparse calls a type in its complaints is the function's name.
for _type, _name in (
    (_count, 'number'),
    (_whole, 'number'),
    (_not_negative, 'number of seconds'),
    (_positive, 'number of seconds'),
    (_uuid, 'UUID'),
):
    _type.__name__ = _name

_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    'post': ('Post messages.', _add_post),
    'list': ('List the messages of a queue, or the queues.', _add_list),
    'claim': ('Claim messages and print them.', _add_claim),
    'tail': ('Print messages as they are posted.', _add_tail),
    'consume': ('Run a command for each message.', _add_consume),
    'stats': ('Count the messages of queues.', _add_stats),
    'ping': ('Say how long the server takes to answer, and how it was reached.', _add_ping),
}
