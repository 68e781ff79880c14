"""The servers that a process speaks to, each by one connection a hub."""

from __future__ import annotations

import _socket
import collections
import hashlib
import os
import pathlib
import weakref
from typing import Any, NamedTuple

import gevent.socket
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from zaqar_gevent.storage.redis.addresses import Address
from zaqar_gevent.storage.redis.calls import PATIENCE_SECONDS, HubLink, Link, ThreadLink
from zaqar_gevent.storage.redis.durability import Durability
from zaqar_gevent.storage.redis.wire import dial

_SCRIPTS = pathlib.Path(__file__).parent / 'scripts'

_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_local = monkey.get_original('threading', 'local')


class Script(NamedTuple):
    """A script.

    is_repeatable: whether running it twice does no harm. is_write: whether it is only done when it
        is as durable as the driver's option says.
    """

    digest: str
    text: str
    is_repeatable: bool
    is_write: bool


def load(name: str, *, is_repeatable: bool = True, is_write: bool = True) -> Script:
    """The script of this name, behind what all of them share."""
    shared = (_SCRIPTS / 'shared.lua').read_text(encoding='utf-8')
    text = shared + (_SCRIPTS / f'{name}.lua').read_text(encoding='utf-8')
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(digest, text, is_repeatable, is_write)


class RedisServer:
    """A Redis server, as the drivers of this process that name it use it. See `ServerHandle`.

    durability: what its writes survive. Writes that are confirmed have connections of their own, so
        that reads do not wait for it.
    """

    def __init__(self, address: Address, durability: Durability) -> None:
        self.address = address
        self.durability = durability
        self.handles = 0
        self.patience = PATIENCE_SECONDS
        self.start()

    def run(self, script: Script, keys: tuple[str, ...], *arguments: Any) -> Any:
        """The answer of a script; raises `RedisUnavailable`."""
        rest = (len(keys), *keys, *arguments)
        return self._link(is_write=script.is_write).call(
            ('EVALSHA', script.digest, *rest),
            ('EVAL', script.text, *rest),
            is_repeatable=script.is_repeatable,
        )

    def ask(self, *command: Any) -> Any:
        """The answer to a command that only reads."""
        return self._link(is_write=False).call(command, None, is_repeatable=True)

    def check(self) -> None:
        """Raise `RedisUnavailable` or `UnsuitableServer` where messages cannot be kept now."""
        sockets = _socket if get_hub_if_exists() is None else gevent.socket
        dial(self.address, sockets, self.durability).close()

    def start(self) -> None:
        """Have no connections yet."""
        self.links: list[Link] = [ThreadLink(self.address, self.patience, self.durability)]
        self._own = _local()

    def _link(self, *, is_write: bool) -> Link:
        hub = get_hub_if_exists()
        if hub is None:
            return self.links[0]
        durability = self.durability if is_write else Durability.MEMORY
        links: dict[Durability, HubLink] = vars(self._own).setdefault('links', {})
        link = links.get(durability)
        if link is None or link.hub is not hub:
            link = links[durability] = HubLink(self.address, self.patience, hub, durability)
            self.links.append(link)
        return link


class ServerHandle:
    """The use of the server at an address by a driver.

    patience: seconds that a call waits for a connection, at most `PATIENCE_SECONDS`. durability:
        what its writes survive.
    """

    def __init__(
        self, address: Address, patience: float, durability: Durability = Durability.MEMORY
    ) -> None:
        _release_abandoned()
        with _registry_lock:
            server = _registry.get((address, durability))
            if server is None:
                server = _registry[address, durability] = RedisServer(address, durability)
            server.patience = min(patience, server.patience)
            server.handles += 1
        self.server = server
        # Garbage is collected anywhere, also under locks: the finalizer only takes a note.
        self._finalizer = weakref.finalize(self, _abandoned.append, server)
        self._finalizer.atexit = False

    def close(self) -> None:
        """Give it up, once; the last use closes the connections."""
        if self._finalizer.detach():
            _release(self.server)


def _release(server: RedisServer) -> None:
    with _registry_lock:
        server.handles -= 1
        if server.handles:
            return
        _registry.pop((server.address, server.durability), None)
    for link in server.links:
        link.close()


def _release_abandoned() -> None:
    while _abandoned:
        _release(_abandoned.popleft())


_abandoned: collections.deque[RedisServer] = collections.deque()
_registry: dict[tuple[Address, Durability], RedisServer] = {}
_registry_lock = _allocate_lock()


def _after_fork() -> None:
    """In a forked child: start anew, since a connection cannot be shared."""
    global _registry_lock
    _registry_lock = _allocate_lock()
    for server in _registry.values():
        for link in server.links:
            if isinstance(link, HubLink):
                link.forget()
            else:
                link.close()
        server.start()


os.register_at_fork(after_in_child=_after_fork)
