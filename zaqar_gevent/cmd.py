"""The `zaqar-gevent` command: a server with nothing to set up, and a client for the terminal."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from zaqar_gevent import arguments
from zaqar_gevent.terminal import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand of the client, the checks, or else the server until it is told to stop.

    Returns the exit status, of the server 0 when stopped by SIGTERM or SIGINT and 1 when it cannot
    start.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in COMMANDS:
        return _run_command(given)
    if given[:1] == ['check']:
        return _check(given[1:])
    if given[:1] == ['store']:
        return _work_on_stores(given[1:])
    if given[:1] == ['db']:
        return _work_on_database(given[1:])
    if given[:1] == ['serve']:
        del given[0]
    return _start(_parse(given))


def _run_command(given: Sequence[str]) -> int:
    try:
        from zaqar_gevent.terminal.main import main as run_command

        return run_command(given)
    except KeyboardInterrupt:
        # Pressed before there was anything to interrupt, or again when it was being ended.
        return 130


def _check(given: Sequence[str]) -> int:
    from zaqar_gevent.check import main as check

    return check(given)


def _work_on_stores(given: Sequence[str]) -> int:
    from zaqar_gevent.copying.main import main as work_on_stores

    return work_on_stores(given)


def _work_on_database(given: Sequence[str]) -> int:
    from oslo_config import cfg

    from zaqar_gevent import conf as configuration

    try:
        from zaqar_gevent.storage.postgresql import command
    except ModuleNotFoundError as error:
        return _fail(f'{error}. Install it: pip install "zaqar_gevent[postgresql]"')
    options = command.parse(given)
    conf = cfg.ConfigOpts()
    try:
        configuration.load(conf, options.config_file)
    except configuration.ConfigurationError as error:
        _fail(str(error))
        return 3
    return command.run(conf, options.action, may_rewrite=options.yes)


def _start(options: argparse.Namespace) -> int:
    try:
        import gevent
        from gevent import monkey
    except ModuleNotFoundError as error:
        return _fail(f'{error}: the server needs all the packages of zaqar_gevent; here are fewer.')

    # PERF: what is loaded stays; to search it for garbage again and again is a tenth of the start.
    gc.disable()
    monkey.patch_all()
    # PERF: where a greenlet was spawned is of interest to nobody, and costs each 1.5 KB.
    gevent.config.track_greenlet_tree = False
    return _serve(options)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent',
        usage='%(prog)s [serve] [options]\n       %(prog)s COMMAND ... [options]',
        description='Serve OpenStack Zaqar over REST and WebSocket on one port.',
        epilog=f'Commands of the client: {", ".join(COMMANDS)}. The command check looks for damage '
        'in the store; store copy moves all data to another store; db check and db migrate work on '
        'the tables in PostgreSQL. The options of a command: zaqar-gevent COMMAND --help',
    )
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
    parser.add_argument(
        '--version', action='version', version=f'%(prog)s {metadata.version("zaqar_gevent")}'
    )
    options, rest = parser.parse_known_args(argv)
    if rest:
        parser.error(_complaint(rest))
    return options


def _complaint(rest: Sequence[str]) -> str:
    """What is wrong about arguments that are none of the server's."""
    commands = 'serve', 'check', 'store', 'db', *COMMANDS
    known = ', '.join(commands)
    command = next((one for one in rest if one in commands), None)
    if command is not None:
        return f'{command} has to come first, as all commands: {known}'
    if rest[0].startswith('-'):
        return f'there is no option {rest[0]}: zaqar-gevent --help lists all'
    return f'there is no command {rest[0]!r}. Commands are: {known}'


def _port(text: str) -> int:
    port = int(text)
    if port not in range(65536):
        raise argparse.ArgumentTypeError(f'{port} is not a port, 0 to 65535')
    return port


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
        configuration.load(conf, options.config_file)
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


def _fail(reason: str) -> int:
    print(f'zaqar-gevent: {reason}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
