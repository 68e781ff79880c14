"""Reads the arguments of a command, and environment variables in their place."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from zaqar_gevent.terminal.commands import COMMANDS, GROUPS, Command
from zaqar_gevent.terminal.values import positive, printable, uuid_text

PROGRAM = 'zaqar-gevent'
DEFAULT_URL = 'http://127.0.0.1:8888'
DEFAULT_PROJECT = 'demo'
ENCODINGS = ('msgpack', 'json')
TRANSPORTS = ('auto', 'websocket', 'rest')
FORMATS = ('auto', 'table', 'json')

_ENVIRONMENT = """environment:
  ZAQAR_URL, ZAQAR_CLOUD, ZAQAR_PROJECT, ZAQAR_TOKEN, ZAQAR_ROLES, ZAQAR_CLIENT_ID,
  ZAQAR_TRANSPORT and ZAQAR_ENCODING give the options of these names.

after -- nothing is an option: so a name or a body may start with a dash.

exit status:
  0 done; 1 the server refused, or a command failed; 2 wrong usage; 3 the server cannot be reached
  or does not answer; 130 interrupted; 141 nobody reads the output any more; 143 terminated
"""


_AFTER_DASHES = 'A name or a body that starts with a dash comes after --'
_GROUP_NOTES = {
    'queue': '`zaqar-gevent queue migrate` moves a queue to another pool, in its stores.',
    'redrive': '`zaqar-gevent redrive QUEUE` is short for `zaqar-gevent redrive start QUEUE`.',
}


def parse(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> argparse.Namespace:
    """Read the arguments of a command, its name first; `command` of the result is its names.

    environment: what options that are not given are taken from; by default the process's.
    Raises SystemExit with status 2, after a line about what is wrong, or 0 after `--help`.
    """
    environment = os.environ if environment is None else environment
    names = tuple(argv[:1])
    given = argv[1:]
    if argv[0] == 'redrive' and given and not _names_member(argv[0], given[0]):
        # `redrive QUEUE` stands for `redrive start QUEUE`.
        names = ('redrive', 'start')
    elif argv[0] in GROUPS:
        names = tuple(argv[:2])
        given = argv[2:]
        if names not in COMMANDS:
            _refuse_member(argv, environment)
    parser = _new_parser(COMMANDS[names], f'{PROGRAM} {" ".join(argv[: len(argv) - len(given)])}')
    _add_arguments(parser, names, environment)
    plain = _without_dashes(given)
    if any(one.startswith('-') and not one.startswith('--') for one in plain):
        parser.hint = f'. {_AFTER_DASHES}'
    arguments, rest = parser.parse_known_intermixed_args(plain)
    if rest:
        _fail(_unknown(_as_given(rest[0]), parser))
    for name, value in vars(arguments).items():
        if isinstance(value, list):
            setattr(arguments, name, [_as_given(one) for one in value])
        else:
            setattr(arguments, name, _as_given(value))
    return arguments


# No argument of a process has this character.
_MARK = '\0'


def _without_dashes(given: Sequence[str]) -> list[str]:
    """The arguments, without `--` and with a mark before each one after it.

    NOTE: argparse forgets the `--` where options stand between arguments.
    """
    if '--' not in given:
        return list(given)
    end = given.index('--')
    return [*given[:end], *(_MARK + one for one in given[end + 1 :])]


def _as_given(value: Any) -> Any:
    """A value of an argument without the mark of `_without_dashes`."""
    return value.removeprefix(_MARK) if isinstance(value, str) else value


def _fail(reason: str) -> NoReturn:
    from zaqar_gevent.terminal.display import complain

    complain(reason)
    raise SystemExit(2)


def _refuse_member(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Say what commands a group has, where `argv` names none of them; raises SystemExit."""
    group, *rest = argv
    if not rest or rest[0].startswith('-'):
        _parser_of_group(group, environment).parse_args(rest)
    known = [names[1] for names in COMMANDS if names[0] == group]
    more = ', migrate' if group == 'queue' else ''
    _fail(
        f'there is no command {f"{group} {rest[0]}"!r}.{suggestion(rest[0], known)} Commands are: '
        f'{", ".join(known)}{more}'
    )


def suggestion(given: str, known: Sequence[str]) -> str:
    """What was most likely meant, as a sentence after a space; empty where nothing is near."""
    import difflib

    near = difflib.get_close_matches(given, known, n=1)
    return f' Did you mean {near[0]}?' if near else ''


def place(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a client is told of where the server is and whose queues are meant."""
    if arguments.cloud:
        given = {'url': arguments.url, 'project': arguments.project}
        return {**given, 'cloud': arguments.cloud}
    return {
        'url': arguments.url or DEFAULT_URL,
        'project': arguments.project or DEFAULT_PROJECT,
    }


def _names_member(group: str, argument: str) -> bool:
    """Whether an argument is a command of a group, or asks for help."""
    return (group, argument) in COMMANDS or argument in ('-h', '--help')


def _unknown(given: str, parser: argparse.ArgumentParser) -> str:
    """The error for an argument that a command does not take."""
    option = given.partition('=')[0]
    if not option.startswith('-'):
        return f'there is an argument too many: {given}. `{parser.prog} --help` lists all'
    meant = suggestion(option, re.findall(r'--[a-z][a-z-]*', parser.format_help()))
    return f'there is no option {option}.{meant} `{parser.prog} --help` lists all. {_AFTER_DASHES}'


def add_commands(subparsers: Any, environment: Mapping[str, str] | None = None) -> None:
    """Add a parser for each command and group to those that `add_subparsers` has made."""
    environment = os.environ if environment is None else environment
    for name, summary in top_level().items():
        parser = subparsers.add_parser(name, help=summary)
        if name in GROUPS:
            _add_members(parser, name, environment)
        else:
            _add_arguments(parser, (name,), environment)


def overview() -> str:
    """All commands, each with what it does, in lines."""
    return '\n'.join(f'  {name:<13} {summary}' for name, summary in top_level().items())


def top_level() -> dict[str, str]:
    """The commands and groups of commands, each with what it does."""
    single = {names[0]: one.summary for names, one in COMMANDS.items() if len(names) == 1}
    return single | GROUPS


def _parser_of_group(name: str, environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f'{PROGRAM} {name}', description=GROUPS[name], epilog=_GROUP_NOTES.get(name)
    )
    _add_members(parser, name, environment)
    return parser


def _add_members(
    parser: argparse.ArgumentParser, group: str, environment: Mapping[str, str]
) -> None:
    subparsers = parser.add_subparsers(
        title='commands', metavar='COMMAND', dest='command', required=True
    )
    for names, command in COMMANDS.items():
        if names[0] == group:
            member = subparsers.add_parser(names[1], help=command.summary)
            _add_arguments(member, names, environment)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with a `hint`."""

    hint = ''

    def error(self, message: str) -> NoReturn:
        super().error(message + self.hint)


def _new_parser(command: Command, program: str) -> _Parser:
    return _Parser(
        prog=program,
        description=f'{command.summary} {command.details}'.strip(),
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_arguments(
    parser: argparse.ArgumentParser, names: tuple[str, ...], environment: Mapping[str, str]
) -> None:
    parser.set_defaults(command=names)
    COMMANDS[names].add_arguments(parser)
    _add_output(parser)
    _add_connection(parser, environment)


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('output')
    group.add_argument(
        '--format',
        choices=FORMATS,
        default='auto',
        help='auto: for people on a terminal, JSON lines in a pipe (default: auto)',
    )
    group.add_argument(
        '--json',
        dest='format',
        action='store_const',
        const='json',
        help='the same as --format json',
    )


def _add_connection(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = parser.add_argument_group('connection')

    def add(name: str, default: str | None, **options: Any) -> None:
        variable = f'ZAQAR_{name.upper().replace("-", "_")}'
        value = environment.get(variable) or default
        choices = options.get('choices')
        if choices and value not in choices:
            parser.error(f'{variable} is {value!r}, and not one of {", ".join(choices)}')
        group.add_argument(f'--{name}', default=value, **options)

    told = f'of the server (default: {DEFAULT_URL}, or what the catalogue of the cloud says)'
    add('url', None, type=printable, help=told)
    told = (
        'a cloud of clouds.yaml, or envvars for the one that the variables OS_* describe: its '
        'catalogue says where the server is, and its credentials are used; needs openstacksdk '
        '(default: none)'
    )
    add('cloud', None, type=printable, help=told)
    told = (
        f'the project that the queues belong to (default: {DEFAULT_PROJECT}, or that of the cloud)'
    )
    add('project', None, type=printable, help=told)
    told = 'Keystone token. Other users can read the command line, so better set ZAQAR_TOKEN'
    add('token', None, type=printable, help=told)
    told = (
        'roles to have on a server without authentication, with commas between them, for example '
        'admin (default: none)'
    )
    add('roles', None, type=printable, help=told)
    add('client-id', None, type=uuid_text, help='a UUID (default: a new one)')
    add(
        'transport',
        'auto',
        choices=TRANSPORTS,
        help='auto: WebSocket, or REST if WebSockets do not get through (default: auto)',
    )
    add('encoding', 'msgpack', choices=ENCODINGS, help='of WebSocket messages (default: msgpack)')
    told = 'wait this long for an answer or a connection (default: 10)'
    group.add_argument('--timeout', type=positive, default=10.0, metavar='SECONDS', help=told)
