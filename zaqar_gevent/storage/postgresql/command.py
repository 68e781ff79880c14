"""The command `zaqar-gevent db`: what tables a database has, and bringing them up to date."""

from __future__ import annotations

import socket
import sys

from oslo_config import cfg
from zaqar.common import errors as upstream_errors
from zaqar.storage import errors

from zaqar_gevent.storage.postgresql import addresses, options, schema
from zaqar_gevent.storage.postgresql.addresses import Address
from zaqar_gevent.storage.postgresql.wire import wait_in_thread

_GROUPS = {'message_store': options.MESSAGE_GROUP, 'management_store': options.MANAGEMENT_GROUP}


def run(conf: cfg.ConfigOpts, action: str, *, may_rewrite: bool) -> int:
    """Check or migrate; the exit status.

    may_rewrite: whether tables may be rewritten without asking.
    """
    try:
        found = find(conf)
    except upstream_errors.ConfigurationError as error:
        return _fail(str(error), 3)
    if not found:
        return _fail('no store of the configuration is in PostgreSQL.', 3)
    statuses = []
    for address in found:
        try:
            statuses.append(_work(address, action, may_rewrite=may_rewrite))
        except schema.TablesTooNew as error:
            statuses.append(_fail(str(error), 1))
        except errors.ConnectionError as error:
            statuses.append(_fail(str(error), 1 if action == 'migrate' else 3))
    return max(statuses)


def find(conf: cfg.ConfigOpts) -> list[Address]:
    """The databases of the stores that are in PostgreSQL, each once."""
    found = [
        addresses.parse(conf[group].uri, conf[group].schema)
        for option, group in _GROUPS.items()
        if conf.drivers[option] == 'postgresql'
    ]
    return list(dict.fromkeys(found))


def _work(address: Address, action: str, *, may_rewrite: bool) -> int:
    checker = schema.Checker(address, wait_in_thread, socket.getaddrinfo)
    try:
        state = checker.look()
        print(f'PostgreSQL at {address}, schema {address.schema} {schema.describe(state)}.')
        if state.is_current:
            return 0
        if action == 'check':
            return 1
        rewritten = [name for one in state.missing for name in one.rewritten]
        if rewritten and not may_rewrite:
            print(
                f'Tables are rewritten, and cannot be used meanwhile: {", ".join(rewritten)}.',
                flush=True,
            )
            if not sys.stdin.isatty() or input('Go on? [y/N] ').strip().lower() != 'y':
                return _fail('nothing was changed. Add --yes to go on.', 1)
        checker.migrate()
        print(f'Now it {schema.describe(checker.look())}.')
        return 0
    finally:
        checker.close()


def _fail(reason: str, status: int) -> int:
    print(f'zaqar-gevent: {reason}', file=sys.stderr)
    return status
