"""Runs a subcommand and makes an exit status of what came of it."""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from zaqar_gevent.client import APIError, Client, ConnectionLost, Timeout, ZaqarError
from zaqar_gevent.terminal.arguments import parse, place
from zaqar_gevent.terminal.commands import COMMANDS
from zaqar_gevent.terminal.display import Display, complain, refusal

DONE = 0
REFUSED = 1
MISUSED = 2
UNREACHABLE = 3
INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM

_STANDARD_ERROR = 2
_WHERE_ELSE = ' Start a server with `zaqar-gevent`, or name one with --url or ZAQAR_URL.'
# What may have happened although no answer came in time.
_MAY_BE_DONE = {
    'post': 'Messages that were being sent may have been posted.',
    'claim': 'Messages may have been claimed; then they are free again when the claim expires.',
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a subcommand as Ctrl-C does."""


def main(argv: Sequence[str]) -> int:
    """Run the subcommand that `argv` begins with; returns the exit status."""
    _prepare_streams()
    arguments = parse(argv)
    signal.signal(signal.SIGTERM, _terminate)
    # Errors are printed instead.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return _run(arguments)
    except Terminated:
        return TERMINATED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # Buffered output would raise this again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return UNREAD
        complain(error.strerror or str(error))
        return REFUSED


def _prepare_streams() -> None:
    """Have three standard streams, also where some were closed, that take whatever is written."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    for number, (name, mode) in enumerate((('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w'))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')  # type: ignore[union-attr]


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _run(arguments: argparse.Namespace) -> int:
    module, _, name = COMMANDS[arguments.command].function.partition(':')
    run: Callable[[Client, argparse.Namespace, Display], int] = getattr(
        importlib.import_module(f'zaqar_gevent.terminal.{module}'), name
    )
    try:
        with _client(arguments) as client:
            return run(client, arguments, Display(arguments.format))
    except APIError as error:
        complain(refusal(error))
        return REFUSED
    except Timeout as error:
        complain(' '.join(filter(None, (str(error), _MAY_BE_DONE.get(arguments.command[0])))))
        return UNREACHABLE
    except ConnectionLost as error:
        is_refused = not arguments.cloud and os.strerror(errno.ECONNREFUSED) in str(error)
        complain(f'{str(error).rstrip(".")}.{_WHERE_ELSE if is_refused else ""}')
        return UNREACHABLE
    except ZaqarError as error:
        complain(str(error))
        return UNREACHABLE


def _client(arguments: argparse.Namespace) -> Client:
    try:
        return Client(
            **place(arguments),
            client_id=arguments.client_id,
            token=arguments.token,
            headers={'X-Roles': arguments.roles} if arguments.roles else None,
            transport=arguments.transport,
            encoding=arguments.encoding,
            timeout=arguments.timeout,
        )
    except (ValueError, ImportError) as error:
        url = arguments.url
        meant = f'; did you mean http://{url}?' if url and '://' not in url else ''
        complain(f'{error}{meant}')
        raise SystemExit(MISUSED) from None
