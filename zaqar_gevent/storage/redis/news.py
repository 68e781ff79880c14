"""News between the processes that share a server: publish and subscribe of Redis.

What is published while a process is not connected is lost to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
import hiredis
from oslo_log import log

from zaqar_gevent.storage.errors import StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.redis.calls import dial_master
from zaqar_gevent.storage.redis.durability import Durability
from zaqar_gevent.storage.redis.outage import read_error
from zaqar_gevent.storage.redis.sentinels import MasterWatch
from zaqar_gevent.storage.redis.servers import RedisServer
from zaqar_gevent.storage.redis.wire import CHUNK, Command, Wire, pack

LOG = log.getLogger(__name__)

_PREFIX = 'zaqar_gevent:news:'
_PING_SECONDS = 10.0
_RETRY_SECONDS = 1.0


class NewsChannel:
    """Tells the processes that use a server of news, by their names."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def tell(self, process: str, news: bytes) -> bool:
        """Publish news for a process; whether it is connected. Raises `StoreUnavailable`."""
        return int(self._server.ask('PUBLISH', _PREFIX + process, news)) > 0

    def listen(
        self, process: str, hear: Callable[[bytes], None], missed: Callable[[], None]
    ) -> None:
        """Hear, in another greenlet, what is published for this process, for as long as it lives.

        hear: called with news. missed: called when some may have been lost, at each connection.
        """
        gevent.spawn(self._listen, _PREFIX + process, hear, missed)

    def _listen(
        self, channel: str, hear: Callable[[bytes], None], missed: Callable[[], None]
    ) -> None:
        address, masters = self._server.address, self._server.masters
        told = ''

        def connected() -> None:
            nonlocal told
            told = ''
            missed()

        while True:
            try:
                wire = dial_master(address, gevent.socket, Durability.MEMORY, masters)
            except (StoreUnavailable, UnsuitableStore) as error:
                # Each call tells of that as well.
                LOG.debug('Redis cannot be listened to: %s', error)
            else:
                unsubscribe = _close_with_master(wire, masters)
                try:
                    _hear_all(wire, channel, hear, connected)
                except OSError as error:
                    # Once, until it has been listened to again.
                    if str(error) != told:
                        LOG.info('%s: news is listened to again soon: %s', address, error)
                    told = str(error)
                finally:
                    unsubscribe()
                    wire.close()
            gevent.sleep(_RETRY_SECONDS)


def _close_with_master(wire: Wire, masters: MasterWatch | None) -> Callable[[], None]:
    """Close a connection when it does not lead to the master any more; returns what ends that."""
    if masters is None:
        return lambda: None

    def check() -> None:
        if masters.is_outdated(wire.host):
            wire.close()

    unsubscribe = masters.subscribe(gevent.get_hub(), check)
    check()
    return unsubscribe


def _hear_all(
    wire: Wire, channel: str, hear: Callable[[bytes], None], missed: Callable[[], None]
) -> None:
    """Hear what is published until the connection breaks, which raises `OSError`."""
    wire.sock.settimeout(_PING_SECONDS)
    subscribe: Command = ('SUBSCRIBE', channel)
    wire.sock.sendall(wire.encode(pack(subscribe)))
    ping: Command = ('PING',)
    is_asked = False
    while True:
        try:
            data = wire.sock.recv(CHUNK)
        except TimeoutError:
            if is_asked:
                raise
            is_asked = True
            wire.sock.sendall(wire.encode(pack(ping)))
            continue
        if not data:
            raise OSError('it has closed the connection')
        is_asked = False
        for answer in wire.decode(data):
            _hear_one(answer, hear, missed)


def _hear_one(answer: Any, hear: Callable[[bytes], None], missed: Callable[[], None]) -> None:
    if isinstance(answer, hiredis.ReplyError):
        raise OSError(read_error(str(answer))[1])
    kind, *_, content = answer
    if kind == b'subscribe':
        missed()
    elif kind == b'message':
        hear(content)
