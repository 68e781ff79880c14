"""Runs the checks, prints their findings and returns an exit status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence

from oslo_config import cfg

from zaqar_gevent import arguments
from zaqar_gevent import conf as configuration
from zaqar_gevent.check import reach, settings, store
from zaqar_gevent.check.finding import Finding, Verdict

CHECKS: dict[str, Callable[[cfg.ConfigOpts], Iterator[Finding]]] = {
    'configuration': settings.check,
    'store': store.check,
    'stores': reach.check_stores,
    'keystone': reach.check_keystone,
}

_STATUS = {Verdict.DAMAGED: 1, Verdict.UNCHECKED: 3, Verdict.IGNORED: 4}

_HELP = """
exit status:
  0  everything that was looked at is sound
  1  damage was found
  2  the command line is wrong
  3  something could not be checked: the configuration or the file cannot be read, or a store or
     Keystone cannot be reached
  4  the configuration has options that do not exist, and so have no effect
"""


def main(argv: Sequence[str]) -> int:
    """Run all checks; returns the exit status."""
    options = _parse(argv)
    conf = cfg.ConfigOpts()
    try:
        configuration.load(conf, options.config_file, options.config_dir)
    except configuration.ConfigurationError as error:
        findings = iter([Finding(Verdict.UNCHECKED, 'configuration', str(error))])
    else:
        state_path = options.state_path or configuration.default_state_path()
        configuration.use_embedded_store(conf, state_path, create=False)
        findings = (finding for check in CHECKS.values() for finding in check(conf))
    return _tell(findings, as_json=options.json)


def _tell(findings: Iterator[Finding], *, as_json: bool) -> int:
    verdicts = set()
    for finding in findings:
        verdicts.add(finding.verdict)
        if as_json:
            line = json.dumps({**finding._asdict(), 'verdict': finding.verdict.value})
        else:
            # Names of queues are clients' own: nothing of them is to reach a terminal as it is.
            report = f'{finding.verdict.value}: {finding.subject}: {finding.text}'
            line = report.encode('ascii', 'backslashreplace').decode()
        print(line, flush=True)
    return next((status for verdict, status in _STATUS.items() if verdict in verdicts), 0)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent check',
        description='Say which configuration files and stores a server would use; look for '
        'misspelt options and for damage in the file of the embedded store; ask other stores '
        'and Keystone whether they can be reached. Nothing is changed, and a server may run '
        "meanwhile. All of the embedded store's file is read, which takes a while if it is large.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_configuration(parser)
    parser.add_argument(
        '--json', action='store_true', help='print each finding as one line of JSON'
    )
    return parser.parse_args(argv)
