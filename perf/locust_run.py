"""Locust without its web page, against a server of its own: writes a report, fails on a failure.

    python -m perf.locust_run [--users 200] [--seconds 30]

Writes `locust.html` and `locust_*.csv` into `perf/results`. Ends with 1 if any request failed.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from perf import results
from perf.machine import CLIENT_CORE, end_orderly, on_core
from perf.servers import Fleet

LOCUSTFILE = results.HERE / 'locustfile.py'
STARTING_SECONDS = 4
SPARE_SECONDS = 60


def run(users: int, seconds: int, out: pathlib.Path) -> int:
    """Run the mix; returns Locust's exit status."""
    out.mkdir(parents=True, exist_ok=True)
    with Fleet() as fleet:
        server = fleet.own()
        command = [sys.executable, '-m', 'locust', '-f', str(LOCUSTFILE), '--headless']
        command += ['--host', f'http://127.0.0.1:{server.port}', '--only-summary']
        command += ['-u', str(users), '-r', str(max(1, users // STARTING_SECONDS))]
        command += ['-t', f'{seconds}s', '--stop-timeout', '5']
        command += ['--html', str(out / 'locust.html'), '--csv', str(out / 'locust')]
        with on_core(CLIENT_CORE):
            ended = subprocess.run(command, check=False, timeout=seconds + SPARE_SECONDS)
        return ended.returncode


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--users', type=int, default=200)
    parser.add_argument('--seconds', type=int, default=30)
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY, help='directory')
    options = parser.parse_args(argv)
    end_orderly()
    return run(options.users, options.seconds, options.out)


if __name__ == '__main__':
    sys.exit(main())
