"""What is told of reads that take too long, whichever store they are made in."""

from __future__ import annotations


def explain_scan(seconds: float) -> str:
    """What a client can do about a read that was broken off after so many seconds."""
    return (
        f'Reading took longer than the {seconds:g} s that it may ([drivers:transport:gevent] '
        'scan_timeout). Ask for less: a smaller limit, fewer or no filters, a later marker.'
    )
