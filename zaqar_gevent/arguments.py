"""Arguments of the command line that say where the configuration and the embedded store are."""

from __future__ import annotations

import argparse
import pathlib


def add_configuration(parser: argparse._ActionsContainer) -> None:
    """Add `--state-path`, a path or None, `--config-file` and `--config-dir`, lists of names."""
    parser.add_argument(
        '--state-path',
        type=_directory,
        metavar='DIR',
        help='where the embedded store keeps its file '
        '(default: $XDG_STATE_HOME/zaqar-gevent or ~/.local/state/zaqar-gevent)',
    )
    add_config_files(parser)


def add_config_files(parser: argparse._ActionsContainer) -> None:
    """Add `--config-file` and `--config-dir`, lists of names."""
    parser.add_argument(
        '--config-file',
        action='append',
        default=[],
        metavar='FILE',
        help='an ordinary zaqar.conf; may be given more than once (default: zaqar.conf in '
        '~/.zaqar, ~, /etc/zaqar or /etc)',
    )
    parser.add_argument(
        '--config-dir',
        action='append',
        default=[],
        metavar='DIR',
        help='a directory whose *.conf are read after the files; may be given more than once '
        '(default: zaqar.conf.d in the same places)',
    )


def _directory(text: str) -> pathlib.Path:
    if not text:
        raise argparse.ArgumentTypeError('an empty name; give a directory')
    return pathlib.Path(text)
