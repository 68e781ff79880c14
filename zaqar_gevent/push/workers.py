"""Telling the connections of other workers that there is news of a queue.

News is a name, not the messages: the other worker reads them from the store that all share. What
gathers for a worker while it is being told is told together: through the store if it can tell
processes of news, and otherwise, or if the worker is not connected there, over HTTP.
"""

from __future__ import annotations

import functools
import re
import secrets
import time
from collections.abc import Callable, Mapping
from logging import WARNING
from typing import Any

import gevent
import msgspec
import urllib3
from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.push import INTERNAL_PATH, Address, Source
from zaqar_gevent.logs import level_of
from zaqar_gevent.storage.interface import NewsChannel

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

# The name of a connection begins with that of its process.
PROCESS_LENGTH = 8
_NAME = re.compile(rf'({HIDDEN})?(?P<process>[0-9a-f]{{{PROCESS_LENGTH}}})[0-9a-f]{{16}}')
_MOST_TOLD = 10_000
_ABSENCE_SECONDS = 15.0
"""How long a process may need to connect to the store again."""


Row = dict[str, Any]


class Told(msgspec.Struct, omit_defaults=True):
    """A piece of news that one process sends to another.

    news: tokens of connections, and the names of queues. sender: the process that tells, which is
    told which connections are gone. gone: tokens that a process was told of and does not know.
    """

    news: list[tuple[str, str]] = []
    sender: str = ''
    gone: list[str] = []


def process_of(token: str) -> str:
    """The process whose connection has a token; empty if it does not say."""
    found = _NAME.fullmatch(token.partition('-')[0])
    return found['process'] if found else ''


def is_worker(subscriber: str) -> bool:
    """Whether a subscriber's URL looks like that of a connection to a server like this."""
    return address_of(subscriber) is not None


def address_of(subscriber: str) -> Address | None:
    """The worker whose connection the subscriber is, if it is one."""
    found = _WORKER.fullmatch(subscriber)
    if found is None or int(found['port']) > _LAST_PORT:
        return None
    return found['host'].strip('[]'), int(found['port']), process_of(token_in(subscriber))


def is_hidden(subscriber: str) -> bool:
    """Whether a subscriber's URL looks like that of a process that listens for itself."""
    return is_worker(subscriber) and f'{PUSH_PATH}{HIDDEN}' in subscriber


class RemoteWorkers:
    """The other workers, as far as there is news for them.

    own: this worker itself, once it listens.
    hear, missed: called with what others tell through the store, and when some may be lost.
    channel: how workers are told through the store, if it can.
    """

    def __init__(
        self,
        broker: Broker,
        hear: Callable[[bytes], None],
        missed: Callable[[], None],
    ) -> None:
        self.own: Address | None = None
        self._broker = broker
        self._hear, self._missed = hear, missed
        self._is_listening = False
        self._known: dict[Address, RemoteWorker] = {}
        self._told: dict[str, tuple[Source, list[Row]]] = {}
        # Since when processes are not connected to the store.
        self._absent: dict[str, float] = {}
        self.channel: NewsChannel | None = None

    @functools.cached_property
    def process(self) -> str:
        """The name of this process, which is made after a fork."""
        return secrets.token_hex(PROCESS_LENGTH // 2)

    def listen(self) -> None:
        """Hear what others tell through the store, if it can."""
        if self.channel is not None and not self._is_listening:
            self._is_listening = True
            self.channel.listen(self.process, self._hear, self._missed)

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

    def tell_by_store(self, process: str, batch: dict[Source, list[Row]]) -> bool:
        """Tell a process through the store; whether it has been told."""
        if self.channel is None or not process:
            return False
        # The answer, which connections are gone, comes as news.
        self.listen()
        if len(self._told) > _MOST_TOLD:
            self._told.clear()
        firsts = {_token(rows[0]): (source, rows) for source, rows in batch.items() if rows}
        self._told.update(firsts)
        named = [(token, source.name) for token, (source, _) in firsts.items()]
        news = Told(named, self.process)
        try:
            is_there = self.channel.tell(process, documents.encode_json(news))
        except storage_errors.ConnectionError as error:
            LOG.log(level_of(error, WARNING), 'Process %s is told over HTTP: %s', process, error)
            is_there = False
        if is_there:
            self._absent.pop(process, None)
        else:
            if len(self._absent) > _MOST_TOLD:
                self._absent.clear()
            self._absent.setdefault(process, time.monotonic())
        return is_there

    def may_come_back(self, process: str) -> bool:
        """Whether a process that refuses HTTP has been told through the store not long ago.

        It may be on another host. It reads all its queues when it is connected to the store again.
        """
        since = self._absent.get(process)
        return since is not None and time.monotonic() - since < _ABSENCE_SECONDS

    def tell_gone(self, process: str, tokens: list[str]) -> None:
        """Tell a process which of the connections that it has told of are gone."""
        if self.channel is None:
            return
        try:
            self.channel.tell(process, documents.encode_json(Told(gone=tokens)))
        except storage_errors.ConnectionError as error:
            LOG.log(level_of(error, WARNING), 'Subscriptions are left to expire: %s', error)

    def hear_gone(self, tokens: list[str]) -> None:
        """A process does not know connections of which it was told."""
        gone = set(tokens)
        for token in tokens:
            source, rows = self._told.pop(token, (None, []))
            if source is not None:
                self.forget(source, [row for row in rows if _token(row) in gone])
                # Others there may have waited for the same news.
                left = [row for row in rows if _token(row) not in gone]
                if left and (address := address_of(left[0]['subscriber'])) is not None:
                    self.tell(source, {address: left})

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
        host, port, self._process = address
        self._workers = workers
        self._waiting: dict[Source, list[Row]] = {}
        self._is_telling = False
        self._http = urllib3.HTTPConnectionPool(
            host, port, maxsize=1, timeout=_TIMEOUT, retries=False
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
                is_told = self._workers.tell_by_store(self._process, batch)
                if not is_told and not self._tell_batch(batch):
                    self._leave_to_successor()
        finally:
            self._is_telling = False

    def _leave_to_successor(self) -> None:
        """What still waits is told to whatever is there next."""
        self._workers.drop(self)
        self._http.close()
        waiting, self._waiting = self._waiting, {}
        for source, rows in waiting.items():
            self._workers.tell(source, {self.address: rows})

    def _tell_batch(self, batch: dict[Source, list[Row]]) -> bool:
        """Tell of each queue by one of its subscriptions; those that are gone are forgotten.

        Returns whether the worker has been told.
        """
        for attempt in range(_TRIES):
            try:
                gone = self._post(batch)
            except _FAILURES as error:
                if isinstance(error.__cause__, ConnectionRefusedError):
                    # Nobody listens there any more.
                    if not self._workers.may_come_back(self._process):
                        for source, rows in batch.items():
                            self._workers.forget(source, rows)
                    break
                LOG.warning('Worker %s:%d could not be told of news: %s', *self.address[:2], error)
                gevent.sleep(_RETRY_SECONDS * 2**attempt)
                continue
            for source, rows in batch.items() if gone else ():
                left = [row for row in rows if _token(row) not in gone]
                if len(left) < len(rows):
                    self._workers.forget(source, [row for row in rows if _token(row) in gone])
                    if left:
                        self._waiting.setdefault(source, left)
            return True
        return False

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
