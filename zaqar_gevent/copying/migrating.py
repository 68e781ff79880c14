"""The command `zaqar-gevent queue migrate`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from oslo_config import cfg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from zaqar.common import cache as zaqar_cache
from zaqar.common import errors as configuration_errors
from zaqar.storage import errors, pooling
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent import arguments
from zaqar_gevent import conf as configuration
from zaqar_gevent.copying.moving import CLOSED_SECONDS, Counts, Mover
from zaqar_gevent.storage import drivers, own_drivers
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.moves import MarkState, MoveRefused
from zaqar_gevent.storage.names import NameRules
from zaqar_gevent.storage.pooled_queues import WAIT_SECONDS, own_driver
from zaqar_gevent.storage.records import QueueRecord
from zaqar_gevent.stores import load_driver, opening

MOVED = 0
FAILED = 1
MISUSED = 2
UNREADABLE = 3
INTERRUPTED = 130

_HELP = f"""
The queue is used meanwhile: its messages are copied, then what has changed since, again and again,
until little is left. Only while that is copied, the queue is closed: its requests wait, for
{WAIT_SECONDS:g} seconds at most, and get 503 then. It is never closed for longer than
{CLOSED_SECONDS:g} seconds; if the rest cannot be copied in this time, the queue stays where it is.
How long it was closed is printed. Other queues are not affected.

What goes with the queue: messages in their order with their ids, what is left of their TTL and
delay, their claim count and attributes; claims, which stay valid; subscriptions, also those of open
WebSockets; and the ids of posts that may be repeated. Markers stay valid. Its settings are not in
the pools. A dead letter queue has to be in the same pool: move it as well.

Run this where the stores can be reached, with the configuration of the servers. Servers go on
serving. If it is interrupted, run it again; until then the queue is used from one pool, the old one
or the new one.

exit status:
  0    the queue is in the new pool
  1    it could not be moved, and is where it was
  2    the command line is wrong
  3    the configuration cannot be read
  130  interrupted by Ctrl-C
"""


def main(argv: Sequence[str]) -> int:
    """Run `zaqar-gevent queue migrate ...`; returns the exit status."""
    options = _parse(argv)
    conf = cfg.ConfigOpts()
    try:
        configuration.load(conf, options.config_file, options.config_dir)
        configuration.use_embedded_store(
            conf, options.state_path or configuration.default_state_path(), create=False
        )
    except configuration.ConfigurationError as error:
        return _fail(str(error), UNREADABLE)
    try:
        counts = _Migration(conf, options).run()
    except KeyboardInterrupt:
        return _fail('interrupted; run the command again to go on', INTERRUPTED)
    except MoveRefused as error:
        return _fail(f'the queue {options.queue!r} was not moved: {error}.', FAILED)
    except (
        errors.ExceptionBase,
        configuration_errors.ConfigurationError,
        configuration.ConfigurationError,
        cfg.Error,
    ) as error:
        return _fail(f'{str(error).rstrip(".")}. Run the command again', FAILED)
    _print(counts, options)
    return MOVED


class _Migration:
    """One run of the command."""

    def __init__(self, conf: cfg.ConfigOpts, options: argparse.Namespace) -> None:
        self._conf = conf
        self._name: str = options.queue
        self._project: str | None = options.project or None
        self._target: str = options.to_pool

    def run(self) -> Counts:
        """Move the queue; raises `MoveRefused`, and what the stores raise."""
        conf = self._conf
        if not conf.pooling:
            raise MoveRefused(
                'there are no pools in this configuration. Set pooling = true in [DEFAULT], or '
                'name the configuration of the servers by --config-file'
            )
        drivers.load_redis_by_choice()
        with opening('management_store', conf):
            control = load_driver('management_store', conf)(conf, zaqar_cache.get_cache(conf))
        try:
            data = pooling.DataDriver(conf, zaqar_cache.get_cache(conf), control)
            drivers.protect(data)
            return self._move(control, data._pool_catalog)
        finally:
            control.close()

    def _move(self, control: Any, catalogue: Any) -> Counts:
        source = self._find_pool(control)
        pool = self._get_pool(control)
        queue = QueueRecord('queue', self._project or '', self._name, self._read_metadata(control))
        if source == self._target:
            return self._clear_away(control, catalogue, queue)
        self._check_flavor(queue, pool)
        leaving = self._open(catalogue, source)
        receiving = self._open(catalogue, self._target)
        try:
            _check_features(queue, receiving)
            self._check_name(queue, pool)
            origin = leaving.leave(queue)
            try:
                destination = receiving.receive(queue)
                try:
                    return _show(
                        lambda progress: Mover(
                            queue,
                            origin,
                            destination,
                            control.catalogue_controller,
                            self._target,
                            progress,
                        ).run()
                    )
                finally:
                    destination.close()
            finally:
                origin.close()
        finally:
            leaving.close()
            receiving.close()

    def _find_pool(self, control: Any) -> str:
        try:
            source: str = control.catalogue_controller.get(self._project, self._name)['pool']
        except errors.QueueNotMapped:
            raise MoveRefused(
                f'there is no such queue in a pool, in the project {self._project or ""!r} '
                '(--project)'
            ) from None
        return source

    def _clear_away(self, control: Any, catalogue: Any, queue: QueueRecord) -> Counts:
        """Remove what an interrupted migration has left in the old pool."""
        names = [one['name'] for one in next(control.pools_controller.list(limit=0))]
        for name in names:
            # Of pools that cannot be opened, or left, this queue came from none.
            with contextlib.suppress(MoveRefused, errors.ConnectionError):
                if name != self._target and self._clear(self._open(catalogue, name), queue):
                    return Counts(was_interrupted=True)
        raise MoveRefused(f'it is in the pool {self._target!r} already')

    def _clear(self, driver: own_drivers.DataDriver, queue: QueueRecord) -> bool:
        origin = driver.leave(queue)
        try:
            mark = origin.get_mark()
            if mark is None or (mark.state, mark.pool) != (MarkState.MOVED, self._target):
                return False
            origin.leave(msgspec.structs.replace(mark, state=MarkState.LEFT))
            return True
        finally:
            origin.close()

    def _get_pool(self, control: Any) -> dict[str, Any]:
        try:
            pool: dict[str, Any] = control.pools_controller.get(self._target, detailed=True)
        except errors.PoolDoesNotExist:
            names = [one['name'] for one in next(control.pools_controller.list(limit=0))]
            raise MoveRefused(
                f'there is no pool {self._target!r}. There are: {", ".join(sorted(names))}'
            ) from None
        return pool

    def _read_metadata(self, control: Any) -> dict[str, Any]:
        for names in (control.queue_controller, control.topic_controller):
            try:
                if names is not None:
                    return names.get_metadata(self._name, project=self._project) or {}
            except errors.DoesNotExist:
                continue
        return {}

    def _check_flavor(self, queue: QueueRecord, pool: dict[str, Any]) -> None:
        wanted, has = queue.metadata.get('_flavor'), pool.get('flavor')
        if wanted != has:
            told = f'the flavor {has!r}' if has else 'no flavor'
            asked = f'asks for the flavor {wanted!r}' if wanted else 'asks for none'
            raise MoveRefused(
                f'the pool {self._target!r} has {told}, and the queue {asked} (_flavor). The next '
                'change of its settings would place it elsewhere, without its messages'
            )

    def _check_name(self, queue: QueueRecord, pool: dict[str, Any]) -> None:
        kind = str(pool['uri']).partition(':')[0]
        rules = NameRules(lambda driver: driver == kind)
        try:
            rules.check_project(queue.project)
            rules.check_queue(queue.name, queue.project)
        except ValidationFailed as error:
            raise MoveRefused(str(error).rstrip('.')) from None

    def _open(self, catalogue: Any, pool: str) -> own_drivers.DataDriver:
        found = own_driver(catalogue.get_driver(pool))
        if found is None:
            raise MoveRefused(
                f"the pool {pool!r} is served by upstream's driver, which cannot hold a queue back "
                'while it moves. Pools of sqlite://, postgresql://, and redis:// with '
                '[drivers] redis_driver = native can'
            )
        return found


def _check_features(queue: QueueRecord, driver: own_drivers.DataDriver) -> None:
    """Raise `MoveRefused` if a store cannot do what the settings of a queue ask for."""
    for feature, settings in _ASKED_FOR.items():
        given = [name for name in settings if queue.metadata.get(name)]
        if given and feature not in driver.features.offered:
            raise MoveRefused(
                f'its setting {given[0]} needs a store that can {feature.value}, which that of the '
                'pool cannot'
            )


_ASKED_FOR = {
    Feature.RETRIES: ('_retry_delay',),
    Feature.GROUPS: ('_ordered_groups', '_fair_groups'),
}
"""The settings of queues that need what only some stores can do."""


def _show(work: Callable[[Callable[[int, int], None] | None], Counts]) -> Counts:
    """Do the work, and show how far it is where standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return work(None)
    columns = (TextColumn('messages'), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task('messages', total=None)
        return work(lambda done, total: progress.update(bar, completed=done, total=total))


def _print(counts: Counts, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(dataclasses.asdict(counts)))
        return
    if counts.was_interrupted:
        print(
            f'The migration of {options.queue} had been interrupted when all was moved. Now it is '
            f'in the pool {options.to_pool}.'
        )
        return
    print(f'{options.queue} is in the pool {options.to_pool}.')
    print(f'messages: {counts.messages}')
    print(f'  held by claims: {counts.claimed}')
    print(f'  delayed: {counts.delayed}')
    print(f'subscriptions: {counts.subscriptions}')
    print(f'records copied: {counts.copied}, in {counts.rounds} rounds')
    print(f'closed for: {counts.pause:.3f} s')


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='zaqar-gevent queue migrate',
        description='Move a queue or topic to another pool while it is used.',
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('queue', metavar='QUEUE', help='the queue or topic to move')
    parser.add_argument('--to-pool', required=True, metavar='POOL', help='the pool to move it to')
    parser.add_argument(
        '--project',
        default='demo',
        help='the project that the queue belongs to (default: demo)',
    )
    arguments.add_configuration(parser)
    parser.add_argument('--json', action='store_true', help='print the counts as one line of JSON')
    return parser.parse_args(argv)


def _fail(reason: str, status: int) -> int:
    print(f'zaqar-gevent: {reason}', file=sys.stderr)
    return status
