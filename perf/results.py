"""Results files: what each program found, from which all tables, charts and texts are made."""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from perf.machine import describe

HERE = pathlib.Path(__file__).parent
DIRECTORY = HERE / 'results'


def save(name: str, found: Any, directory: pathlib.Path = DIRECTORY) -> pathlib.Path:
    """Write what a program has found, if anything, with the machine; returns the file."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f'{name}.json'
    document = {'machine': describe(), 'found': found}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b'\n')
    return file


def load(name: str, directory: pathlib.Path = DIRECTORY) -> dict[str, Any] | None:
    """What a program has found last; None where it has not run."""
    file = directory / f'{name}.json'
    document: dict[str, Any] | None = None
    if file.exists():
        document = msgspec.json.decode(file.read_bytes())
    return document


def options(doc: str | None, argv: Sequence[str] | None, *, seconds: float) -> argparse.Namespace:
    """What the programs have in common that take samples of some `seconds` in rounds."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seconds', type=float, default=seconds)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=pathlib.Path, default=DIRECTORY, help='directory')
    return parser.parse_args(argv)


def significant(value: float, digits: int = 4) -> float:
    """A figure without digits that mean nothing."""
    return float(f'{value:.{digits}g}')


def middle(values: Sequence[float]) -> dict[str, float]:
    """The median of the rounds, and their spread: the difference of the extremes over it."""
    median = statistics.median(values)
    spread = (max(values) - min(values)) / median if median else 0.0
    return {'median': significant(median), 'spread': significant(spread, 2)}


def percentiles(latencies: Sequence[float]) -> dict[str, float | None]:
    """p50, p99 and p99.9 in milliseconds; None where too few were measured to tell."""
    ordered = sorted(latencies)

    def at(share: float, least: int) -> float | None:
        if len(ordered) < least:
            return None
        return significant(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3)

    return {'p50': at(0.5, 1), 'p99': at(0.99, 100), 'p999': at(0.999, 1000)}


class Stopwatch:
    """How much of the time that a program may take is left."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    @property
    def passed(self) -> float:
        return time.monotonic() - self._began

    @property
    def is_over(self) -> bool:
        return self.passed > self._seconds
