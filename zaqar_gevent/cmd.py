"""The entry point of the `zaqar-gevent` command. What it runs is in `zaqar_gevent.program`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zaqar_gevent import interruption


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with its arguments, by default those of the process; the exit status."""
    # It has to come before the imports, which take much of the time of a short command.
    interruption.end_at_once()
    from zaqar_gevent.program import main as run

    return run(sys.argv[1:] if argv is None else argv)


if __name__ == '__main__':
    sys.exit(main())
