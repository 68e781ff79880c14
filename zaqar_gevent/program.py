"""What `zaqar-gevent` runs: a server with nothing to set up, and a client for the terminal."""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

from zaqar_gevent import arguments, interruption

_VERSION = f'zaqar-gevent {metadata.version("zaqar_gevent")}'
_EPILOG = """commands:
  serve         Start the server; so does no command at all.
  check         Look for misspelt options, for damage in the store, and whether it can be reached.
  store         Copy all data from one store to another.
  queue migrate Move a queue to another pool, in the stores themselves.
  db            Check or migrate the tables in PostgreSQL.
{overview}
  version       Print the version of this program.
  help          Explain a command, as --help after it does.
  completion    Print a script by which a shell completes commands and options.

zaqar-gevent COMMAND --help explains a command.
"""
_COMPLETION_HELP = """to use it in each new shell, add this to the file in brackets:
  eval "$(zaqar-gevent completion bash)"        (~/.bashrc)
  eval "$(zaqar-gevent completion zsh)"         (~/.zshrc, after compinit)
  zaqar-gevent completion fish | source         (~/.config/fish/config.fish)
"""


def main(argv: Sequence[str]) -> int:
    """Run a subcommand of the client, the checks, or else the server until it is told to stop.

    Returns the exit status, of the server 0 when stopped by SIGTERM or SIGINT and 1 when it cannot
    start.
    """
    given = list(argv)
    if '_ARGCOMPLETE' in os.environ:
        _complete()
    if given[:2] == ['queue', 'migrate']:
        return _run_local(_migrate_queue, given[2:])
    if given and given[0] in _LOCAL_COMMANDS:
        return _run_local(_LOCAL_COMMANDS[given[0]], given[1:])
    if given[:1] == ['serve']:
        del given[0]
    # PERF: the list of the client's commands takes a while to load, which the server need not.
    elif given and not given[0].startswith('-') and given[0] in _client_commands():
        return _run_command(given)
    return _start(_parse(given))


def _run_command(given: Sequence[str]) -> int:
    try:
        from zaqar_gevent.terminal.main import main as run_command

        interruption.raise_it()
        return run_command(given)
    except KeyboardInterrupt:
        # Pressed before there was anything to interrupt, or again when it was being ended.
        return interruption.INTERRUPTED


def _run_local(command: Callable[[Sequence[str]], int], given: Sequence[str]) -> int:
    try:
        status = command(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on. What is buffered would raise this again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        return _fail_incomplete(error)
    return status


def _check(given: Sequence[str]) -> int:
    from zaqar_gevent.check import main as check

    return check(given)


def _work_on_stores(given: Sequence[str]) -> int:
    from zaqar_gevent.copying.main import main as work_on_stores

    interruption.raise_it()
    return work_on_stores(given)


def _migrate_queue(given: Sequence[str]) -> int:
    from zaqar_gevent.copying.migrating import main as migrate_queue

    interruption.raise_it()
    return migrate_queue(given)


def _work_on_database(given: Sequence[str]) -> int:
    from zaqar_gevent.storage.postgresql.arguments import parse

    options = parse(given)
    from oslo_config import cfg

    from zaqar_gevent import conf as configuration

    try:
        from zaqar_gevent.storage.postgresql import command
    except ModuleNotFoundError as error:
        return _fail(f'{error}. Install it: pip install "zaqar_gevent[postgresql]"')
    conf = cfg.ConfigOpts()
    try:
        configuration.load(conf, options.config_file, options.config_dir)
    except configuration.ConfigurationError as error:
        _fail(str(error))
        return 3
    return command.run(conf, options.action, may_rewrite=options.yes)


def _help(given: Sequence[str]) -> int:
    """`help`, or that of a command."""
    given = [one for one in given if one not in ('-h', '--help')]
    if given and given[0] not in _names():
        _new_parser().error(_complaint(given))
    if given and given[0] != 'help':
        return main([*given, '--help'])
    _new_parser().print_help()
    return 0


def _version(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent version',
        description='Print the version of this program. That of a server: zaqar-gevent ping',
    )
    parser.parse_args(given)
    print(_VERSION)
    return 0


def _completion(given: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent completion',
        description='Print a script by which a shell completes commands and options.',
        epilog=_COMPLETION_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('shell', choices=('bash', 'zsh', 'fish'))
    shell: str = parser.parse_args(given).shell
    from argcomplete.shell_integration import shellcode

    print(shellcode(['zaqar-gevent'], shell=shell))
    return 0


def _complete() -> None:
    """Answer the shell, which asks by variables of the environment, and exit."""
    import argcomplete

    from zaqar_gevent.terminal.arguments import add_commands

    parser = _new_parser()
    commands = parser.add_subparsers()
    _add_options(commands.add_parser('serve'))
    arguments.add_configuration(commands.add_parser('check'))
    commands.add_parser('store').add_argument('action', choices=('copy',))
    commands.add_parser('db').add_argument('action', choices=('check', 'migrate'))
    add_commands(commands)
    commands.add_parser('help').add_argument('command', nargs='*', choices=_names())
    commands.add_parser('version')
    commands.add_parser('completion').add_argument('shell', choices=('bash', 'zsh', 'fish'))
    argcomplete.autocomplete(parser)


def _start(options: argparse.Namespace) -> int:
    try:
        import gevent
        from gevent import monkey
    except ModuleNotFoundError as error:
        return _fail_incomplete(error)

    # PERF: what is loaded stays; to search it for garbage again and again is a tenth of the start.
    gc.disable()
    monkey.patch_all()
    # PERF: where a greenlet was spawned is of interest to nobody, and costs each 1.5 KB.
    gevent.config.track_greenlet_tree = False
    return _serve(options)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _new_parser()
    options, rest = parser.parse_known_args(argv)
    if rest:
        parser.error(_complaint(rest))
    return options


class _Parser(argparse.ArgumentParser):
    """Makes the list of commands, which is long to import, only for its help."""

    def format_help(self) -> str:
        from zaqar_gevent.terminal.arguments import overview

        self.epilog = _EPILOG.format(overview=overview())
        return super().format_help()


def _new_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog='zaqar-gevent',
        usage='%(prog)s [serve] [OPTIONS]\n       %(prog)s COMMAND [ARGUMENTS] [OPTIONS]',
        description='Serve OpenStack Zaqar over REST and WebSocket, or use such a server.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser.add_argument_group('options of the server'))
    parser.add_argument('--version', action='version', version=_VERSION)
    return parser


def _add_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        '--bind', metavar='ADDRESS', help='address to listen on (default: 127.0.0.1)'
    )
    parser.add_argument(
        '--port', type=_port, help='port to listen on; 0 for any free one (default: 8888)'
    )
    parser.add_argument(
        '--allowed-host',
        action='append',
        default=[],
        metavar='NAME',
        help='answer to this host name too while there is no authentication; may be given more '
        'than once; * for every name (default: IP addresses, localhost, the name of this machine)',
    )
    parser.add_argument(
        '--allowed-origin',
        action='append',
        default=[],
        metavar='URL',
        help='let web pages of this origin use the server, for example http://localhost:5173; may '
        "be given more than once; * for every origin (default: only the server's own pages)",
    )
    arguments.add_configuration(parser)


def _names() -> tuple[str, ...]:
    return ('serve', *_LOCAL_COMMANDS, *_client_commands())


def _client_commands() -> list[str]:
    from zaqar_gevent.terminal.arguments import top_level

    return list(top_level())


def _options_of_server() -> list[str]:
    return re.findall(r'--[a-z][a-z-]*', _new_parser().format_help())


def _complaint(rest: Sequence[str]) -> str:
    """The error for arguments that the server does not have."""
    from zaqar_gevent.terminal.arguments import suggestion

    names = _names()
    known = ', '.join(names)
    first, *_ = rest
    command = next((one for one in rest if one in names), None)
    if command is not None and (command == first or first.startswith('-')):
        return f'{command} has to come first, as all commands: {known}'
    if first.startswith('-'):
        option = first.partition('=')[0]
        meant = suggestion(option, _options_of_server())
        return f'there is no option {option}.{meant} zaqar-gevent --help lists all'
    return f'there is no command {first!r}.{suggestion(first, names)} Commands are: {known}'


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) not in range(65536):
        raise argparse.ArgumentTypeError(f'{text!r} is not a port, 0 to 65535')
    return int(text)


def _serve(options: argparse.Namespace) -> int:
    """Everything that needs the patched standard library, imported only now."""
    import signal

    import gevent
    from oslo_config import cfg

    from zaqar_gevent import conf as configuration
    from zaqar_gevent import logs
    from zaqar_gevent import options as transport
    from zaqar_gevent.hosts import is_loopback
    from zaqar_gevent.server import Service, enable_reports, new_server, settle

    conf = cfg.CONF
    try:
        configuration.load(conf, options.config_file, options.config_dir)
        configuration.use_embedded_store(
            conf, options.state_path or configuration.default_state_path()
        )
        configuration.allow_hosts(conf, options.allowed_host)
        configuration.allow_origins(conf, options.allowed_origin)
        logs.set_up(conf)
        enable_reports(conf)
        service = Service(conf)
    except configuration.ConfigurationError as error:
        return _fail(str(error))
    section = conf['drivers:transport:wsgi']
    bind = options.bind or section.bind
    port = section.port if options.port is None else options.port
    _allow_many_files()
    server = new_server((bind, port), service.app, conf)
    try:
        server.init_socket()
    except OSError as error:
        service.close()
        return _fail(
            f'Cannot listen on {bind}:{port} (--bind, --port, or [drivers:transport:wsgi] bind, '
            f'port): {error.strerror or error}{_explain_port(conf, port)}'
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.close)
    settle()
    gc.enable()
    server.start()
    host, bound_port = server.address[:2]
    url_host = f'[{host}]' if ':' in host else host
    if not conf.auth_strategy and not is_loopback(host):
        print(
            f'zaqar-gevent: warning: everybody who reaches {url_host}:{bound_port} can read and '
            'delete all messages, for auth_strategy is empty: there is no authentication.',
            file=sys.stderr,
        )
    print(
        f'zaqar-gevent: REST and WebSocket on http://{url_host}:{bound_port}, '
        f'store {configuration.describe_store(conf)}',
        flush=True,
    )
    server.serve_forever(stop_timeout=conf[transport.GROUP].graceful_timeout)
    service.close()
    return 0


def _explain_port(conf: Any, port: int) -> str:
    """Why nobody can listen on a port, where that is the configuration's fault."""
    from zaqar_gevent import options as transport

    section = conf[transport.GROUP]
    if section.metrics and section.metrics_port == port:
        return f'. [{transport.GROUP}] metrics_port is the same port; it has to be another one'
    return ''


def _allow_many_files() -> None:
    """Allow the process as many open files, and so connections, as it may allow itself."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _fail_incomplete(error: ModuleNotFoundError) -> int:
    return _fail(
        f'{error}: the server and the commands that work on its stores need all the packages of '
        'zaqar_gevent; here are fewer. Install them: pip install zaqar_gevent'
    )


def _fail(reason: str) -> int:
    print(f'zaqar-gevent: {reason}', file=sys.stderr)
    return 1


_LOCAL_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    'check': _check,
    'store': _work_on_stores,
    'db': _work_on_database,
    'help': _help,
    'version': _version,
    'completion': _completion,
}
