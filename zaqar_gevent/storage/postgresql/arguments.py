"""The arguments of the command `zaqar-gevent db`, which are explained without the extra as well."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from zaqar_gevent.arguments import add_config_files

_HELP = """
exit status:
  0  the tables are those of this version
  1  they are older or newer (check), or could not be changed (migrate)
  2  the command line is wrong
  3  the configuration or the database cannot be read
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent db',
        description='Check the tables of the stores in PostgreSQL that the configuration names, '
        'or bring them up to date.',
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'action',
        choices=['check', 'migrate'],
        help='check: say what version the tables have; nothing is changed. migrate: create or '
        'change them. Tables that are rewritten cannot be used meanwhile; that is said first.',
    )
    add_config_files(parser)
    parser.add_argument('--yes', action='store_true', help='do not ask before tables are rewritten')
    return parser.parse_args(argv)
