"""Says which files the configuration is from, and which of their options nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg

from zaqar_gevent.admission import check_strategy, hosts_of, origins_of
from zaqar_gevent.check.finding import Finding, Verdict
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.unknown_options import files_of, find_unknown_options


def check(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """The files that were read, then values with which a server does not start, and then each
    option, or group of options, that does not exist.
    """
    yield Finding(Verdict.SOUND, 'configuration', _describe_files(conf))
    for check_value in (check_strategy, hosts_of, origins_of):
        try:
            check_value(conf)
        except ConfigurationError as error:
            yield Finding(Verdict.UNCHECKED, 'configuration', f'a server does not start: {error}')
    for unknown in find_unknown_options(conf):
        yield Finding(Verdict.IGNORED, 'configuration', unknown.describe())


def _describe_files(conf: cfg.ConfigOpts) -> str:
    files = ', '.join(files_of(conf))
    if files:
        return f'read from {files}'
    return 'no file was given, and none is in the standard places: every option has its default'
