"""Says which files the configuration is from, and which of their options nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg

from zaqar_gevent.check.finding import Finding, Verdict
from zaqar_gevent.conf import find_standard_files
from zaqar_gevent.unknown_options import files_of, find_unknown_options


def check(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """The files that were read, then each option, or group of options, that does not exist."""
    yield Finding(Verdict.SOUND, 'configuration', _describe_files(conf))
    for unknown in find_unknown_options(conf):
        yield Finding(Verdict.IGNORED, 'configuration', unknown.describe())


def _describe_files(conf: cfg.ConfigOpts) -> str:
    files = ', '.join(files_of(conf))
    if files:
        return f'read from {files}'
    text = 'no file was given: every option has its default'
    standard = ' '.join(f'--config-file {file}' for file in find_standard_files())
    if not standard:
        return text
    return f'{text}. Under gunicorn a server reads files that were not checked; add {standard}'
