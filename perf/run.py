"""Everything: measures all there is to measure, and writes the documentation from it.

    python -m perf.run [--short | --quick] [--only compare scale ...] [--out DIR --docs DIR]

Each program runs by itself, within a time of its own; one that fails is told of at the end, and the
others go on. Ends with 1 if any failed.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

from perf import report, results

# By program: its options in full, its options when quick, and the minutes it may take in either.
PROGRAMS: dict[str, tuple[list[str], list[str], float, float]] = {
    'ceiling': ([], ['--seconds', '0.2', '--rounds', '1'], 4, 2),
    'compare': (['--minutes', '22'], ['--quick', '--minutes', '3'], 27, 4),
    'anatomy': ([], ['--seconds', '0.3', '--rounds', '1'], 3, 2),
    'profiles': ([], ['--seconds', '0.2', '--rounds', '1'], 5, 3),
    'fanout': ([], ['--subscribers', '1', '100', '1000', '--deliveries', '10000'], 4, 2),
    'connections': ([], ['--counts', '1000'], 8, 3),
    'scale': (
        [],
        [
            *(
                '--lengths',
                '1000',
                '20000',
                '--queues',
                '100',
                '2000',
                '--withheld',
                '1000',
                '5000',
            ),
            *('--connections', '0', '1000', '--seconds', '0.2', '--rounds', '1'),
        ],
        *(9, 3),
    ),
    'peers': ([], ['--seconds', '0.3', '--rounds', '1'], 6, 3),
    'clients': ([], ['--seconds', '0.3', '--rounds', '1'], 3, 2),
    'locust_run': ([], ['--users', '50', '--seconds', '10'], 3, 2),
}


# Instead of the full options: the same tables of fewer and shorter rounds, within 20 minutes.
SHORT: dict[str, list[str]] = {
    'ceiling': ['--rounds', '1', '--seconds', '0.5'],
    'compare': ['--minutes', '11', '--rounds', '2', '--seconds', '0.4'],
    'anatomy': ['--rounds', '2', '--seconds', '0.5'],
    'profiles': ['--rounds', '2', '--seconds', '0.5'],
    'connections': ['--counts', '1000', '5000'],
    'scale': ['--rounds', '1', '--seconds', '0.3'],
    'peers': ['--rounds', '2', '--seconds', '0.5'],
    'clients': ['--rounds', '2', '--seconds', '1'],
}


def run(name: str, options: list[str], minutes: float) -> str | None:
    """Run one program; what is to be said if it failed."""
    print(f'\n== {name}', flush=True)
    process = subprocess.Popen([sys.executable, '-m', f'perf.{name}', *options])
    try:
        status = process.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        # It ends what it has started.
        process.terminate()
        process.wait()
    if status is None:
        return f'{name} was not done in {minutes} minutes'
    return f'{name} ended with {status}' if status else None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--short', action='store_true', help='the same tables within 20 minutes')
    length.add_argument('--quick', action='store_true', help='to see that everything works')
    parser.add_argument('--only', nargs='+', choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument('--out', type=pathlib.Path, default=results.DIRECTORY)
    parser.add_argument('--docs', type=pathlib.Path, default=report.DOCS)
    options = parser.parse_args(argv)
    began, failures = time.monotonic(), []
    # The machine as it is before it is kept busy.
    results.save('machine', None, options.out)
    for name in options.only:
        full, quick, full_minutes, quick_minutes = PROGRAMS[name]
        if options.short:
            full = SHORT.get(name, full)
        own = [*(quick if options.quick else full), '--out', str(options.out)]
        minutes = quick_minutes if options.quick else full_minutes
        program_began = time.monotonic()
        failures += [text for text in [run(name, own, minutes)] if text]
        print(f'== {name}: {(time.monotonic() - program_began) / 60:.1f} minutes', flush=True)
    options.docs.mkdir(parents=True, exist_ok=True)
    print(f'\n{report.write(options.out, options.docs)}')
    print(f'{(time.monotonic() - began) / 60:.1f} minutes in all')
    for text in failures:
        print(text, file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
