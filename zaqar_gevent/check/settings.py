"""Looks for options that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg

from zaqar_gevent.check.finding import Finding, Verdict
from zaqar_gevent.unknown_options import find_unknown_options


def check(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """One finding for each option, or group of options, that does not exist."""
    for unknown in find_unknown_options(conf):
        yield Finding(Verdict.IGNORED, 'configuration', unknown.describe())
