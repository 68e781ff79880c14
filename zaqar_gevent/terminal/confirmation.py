"""Asks before something is deleted."""

from __future__ import annotations

import argparse
import sys

from zaqar_gevent.terminal.display import complain, printable


def confirmed(question: str, arguments: argparse.Namespace) -> bool:
    """Whether to go on: always with `--yes` and where nobody could answer, as in a script.

    question: a sentence without its question mark. A refusal is told.
    """
    if arguments.yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print(f'{printable(question)}? [y/N] ', end='', file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ('y', 'yes'):
        return True
    complain('nothing was deleted')
    return False
