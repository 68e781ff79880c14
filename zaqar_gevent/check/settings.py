"""Says which files the configuration is from, and which of their options nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg

from zaqar_gevent.check.finding import Finding, Verdict
from zaqar_gevent.unknown_options import files_of, find_unknown_options


def check(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """The files that were read, then each option, or group of options, that does not exist."""
    files = ', '.join(files_of(conf))
    text = f'read from {files}' if files else 'no file was found: every option has its default'
    yield Finding(Verdict.SOUND, 'configuration', text)
    for unknown in find_unknown_options(conf):
        yield Finding(Verdict.IGNORED, 'configuration', unknown.describe())
