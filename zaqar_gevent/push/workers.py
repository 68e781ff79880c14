"""Telling the connections of other workers that there is news of a queue.

News is a name, not the messages: the other worker reads them from the store that all share. What
gathers for a worker while it is being told is told together, over a connection that is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from logging import WARNING
from typing import Any

import gevent
import urllib3
from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.push import INTERNAL_PATH, Address, Source
from zaqar_gevent.logs import level_of

LOG = log.getLogger(__name__)

PUSH_PATH = f'{INTERNAL_PATH}push/'
# What the name of a process that listens for itself begins with; those of connections are hex.
HIDDEN = 'worker'
NEWS_PATH = f'{INTERNAL_PATH}news'

_AT_ONCE = 1000
_TRIES = 3
_RETRY_SECONDS = 0.2
_TIMEOUT = urllib3.Timeout(connect=2, read=5)

# The last where no thread can be started to look up a host.
_FAILURES = (urllib3.exceptions.HTTPError, errors.MalformedDocument, ValueError, RuntimeError)

# What such a URL looks like; whether it is one, its signature says.
_WORKER = re.compile(
    rf'http://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{{1,5}}){PUSH_PATH}[\w-]+', re.ASCII
)
_LAST_PORT = 65535

Row = dict[str, Any]


def is_worker(subscriber: str) -> bool:
    """Whether a subscriber's URL looks like that of a connection to a server like this."""
    return address_of(subscriber) is not None


def address_of(subscriber: str) -> Address | None:
    """Where the server listens whose connection the subscriber is, if it is one."""
    found = _WORKER.fullmatch(subscriber)
    if found is None or int(found['port']) > _LAST_PORT:
        return None
    return found['host'].strip('[]'), int(found['port'])


def is_hidden(subscriber: str) -> bool:
    """Whether a subscriber's URL looks like that of a process that listens for itself."""
    return is_worker(subscriber) and f'{PUSH_PATH}{HIDDEN}' in subscriber


class RemoteWorkers:
    """The other workers, as far as there is news for them.

    own: where this worker listens itself, if it does.
    """

    def __init__(self, broker: Broker) -> None:
        self.own: Address | None = None
        self._broker = broker
        self._known: dict[Address, RemoteWorker] = {}

    def tell(self, source: Source, subscriptions: Mapping[Address, list[Row]]) -> None:
        """Tell the workers that there is news of `source`, each for those of its connections.

        PERF: each post does, so none of the connections is looked at.
        """
        for address, rows in subscriptions.items():
            if address == self.own:
                continue
            if address not in self._known:
                self._known[address] = RemoteWorker(address, self)
            self._known[address].tell(source, rows)

    def forget(self, source: Source, rows: list[Row]) -> None:
        """Take subscriptions whose connection is gone out of the store."""
        for row in rows:
            try:
                self._broker.subscriptions.delete(source.name, row['id'], project=source.project_id)
            except Exception as error:
                LOG.log(
                    level_of(error, WARNING),
                    'Subscription %s is left to expire: %s',
                    row['id'],
                    error,
                )
        self._broker.notifier.forget(source.name, source.project_id)

    def drop(self, worker: RemoteWorker) -> None:
        """A worker cannot be told: whatever is there next is another one."""
        if self._known.get(worker.address) is worker:
            del self._known[worker.address]


class RemoteWorker:
    """Another worker: what it has to be told, and the greenlet that tells it while there is any."""

    def __init__(self, address: Address, workers: RemoteWorkers) -> None:
        self.address = address
        self._workers = workers
        self._waiting: dict[Source, list[Row]] = {}
        self._is_telling = False
        self._http = urllib3.HTTPConnectionPool(
            *address, maxsize=1, timeout=_TIMEOUT, retries=False
        )

    def tell(self, source: Source, rows: list[Row]) -> None:
        """Tell the worker, soon, of news for the connections in `rows`; does not wait."""
        self._waiting[source] = rows
        if not self._is_telling:
            self._is_telling = True
            gevent.spawn(self._tell_all)

    def _tell_all(self) -> None:
        try:
            while self._waiting:
                batch = {
                    source: self._waiting.pop(source) for source in list(self._waiting)[:_AT_ONCE]
                }
                self._tell_batch(batch)
        finally:
            self._is_telling = False

    def _tell_batch(self, batch: dict[Source, list[Row]]) -> None:
        """Tell of each queue by one of its subscriptions; those that are gone are forgotten."""
        for attempt in range(_TRIES):
            try:
                gone = self._post(batch)
            except _FAILURES as error:
                if isinstance(error.__cause__, ConnectionRefusedError):
                    # Nobody listens there any more.
                    for source, rows in batch.items():
                        self._workers.forget(source, rows)
                    break
                LOG.warning('Worker %s:%d could not be told of news: %s', *self.address, error)
                gevent.sleep(_RETRY_SECONDS * 2**attempt)
                continue
            for source, rows in batch.items() if gone else ():
                left = [row for row in rows if _token(row) not in gone]
                if len(left) < len(rows):
                    self._workers.forget(source, [row for row in rows if _token(row) in gone])
                    if left:
                        self._waiting.setdefault(source, left)
            return
        self._workers.drop(self)
        self._http.close()

    def _post(self, batch: dict[Source, list[Row]]) -> set[str]:
        """Say what there is; the tokens that the worker does not know (any more)."""
        news = [[_token(rows[0]), source.name] for source, rows in batch.items() if rows]
        response = self._http.request(
            'POST',
            NEWS_PATH,
            body=documents.encode_json({'news': news}),
            headers={'Content-Type': 'application/json'},
        )
        if response.status != 200:
            raise ValueError(f'it answers {response.status}')
        try:
            return set(documents.decode_json(response.data)['gone'])
        except (KeyError, TypeError):
            raise ValueError('what it answers cannot be understood') from None


def _token(row: Row) -> str:
    return token_in(row['subscriber'])


def token_in(url: str) -> str:
    """The last part of the URL of a connection: its name and the signature."""
    return url.rpartition('/')[2]
