"""`quota`: what the project uses of its quotas."""

from __future__ import annotations

import argparse

from zaqar_gevent.client import Client
from zaqar_gevent.terminal.display import Display


def run(client: Client, arguments: argparse.Namespace, display: Display) -> int:
    """Print what is used and allowed by the names of the limits."""
    quotas = client.quotas()
    records = [{'name': name, **quota} for name, quota in quotas.items()]
    rows = [
        (name, _text(quota['used'], ''), _text(quota['allowed'], 'unlimited'))
        for name, quota in quotas.items()
    ]
    display.show_table(records, ('quota', 'used', 'allowed'), rows)
    return 0


def _text(number: int | None, otherwise: str) -> str:
    return otherwise if number is None else str(number)
