"""The servers that a process speaks to, each by one connection a hub."""

from __future__ import annotations

import _socket
import hashlib
import pathlib
import uuid
from typing import Any, NamedTuple

import gevent.socket
import hiredis
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from zaqar_gevent.storage.core.handles import Handle, Registry
from zaqar_gevent.storage.core.links import PATIENCE_SECONDS
from zaqar_gevent.storage.errors import StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.redis.addresses import Address
from zaqar_gevent.storage.redis.calls import HubLink, Link, ThreadLink
from zaqar_gevent.storage.redis.durability import Durability
from zaqar_gevent.storage.redis.outage import WRITES_REFUSED, Meaning, read_error
from zaqar_gevent.storage.redis.script_linker import link_script
from zaqar_gevent.storage.redis.sentinels import MasterWatch
from zaqar_gevent.storage.redis.wire import Wire, dial

_SCRIPTS = pathlib.Path(__file__).parent / 'scripts'

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


def load(*names: str, is_repeatable: bool = True, is_write: bool = True) -> Script:
    """The script of the last name, with the definitions that it uses of `shared` and the others."""
    *libraries, script = (
        (_SCRIPTS / f'{name}.lua').read_text(encoding='utf-8') for name in ('shared', *names)
    )
    text = link_script(''.join(libraries), script)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(digest, text, is_repeatable, is_write)


# The connections of a hub, by durability; reads need none. PERF: plain text is found faster than
# members of the enumeration.
_READ = str(Durability.MEMORY)


class RedisServer:
    """A Redis server, which the drivers of this process that name it share; see `open_server`.

    durability: what its writes survive. Writes that are confirmed have connections of their own, so
        that reads do not wait for it. masters: where Sentinels know the master.
    """

    def __init__(self, address: Address, patience: float, durability: Durability) -> None:
        self.address = address
        self.patience = patience
        self.durability = durability
        self._written = str(durability)
        self._start()

    def run(self, script: Script, keys: tuple[str, ...], *arguments: Any) -> Any:
        """The answer of a script; raises `StoreUnavailable`."""
        return self._link(is_write=script.is_write).call(
            ('EVALSHA', script.digest, len(keys), *keys, *arguments),
            script.text,
            is_repeatable=script.is_repeatable,
        )

    def ask(self, *command: Any) -> Any:
        """The answer to a command that only reads."""
        return self._link(is_write=False).call(command, None, is_repeatable=True)

    def check(self) -> None:
        """Raise `StoreUnavailable` or `UnsuitableStore` where messages cannot be kept now."""
        sockets = _socket if get_hub_if_exists() is None else gevent.socket
        wire = dial(self.address, sockets, self.durability)
        try:
            _try_scripts(wire, self.address)
        finally:
            wire.close()

    def close(self, *, wait: bool) -> None:
        """Close all connections; all calls that wait fail."""
        for link in self._links:
            link.close()
        if self.masters is not None:
            self.masters.close()

    def after_fork(self) -> None:
        """In a forked child: start anew, since a connection cannot be shared."""
        for link in self._links:
            link.forget()
        self._start()

    def _start(self) -> None:
        """Have no connections yet."""
        self.masters = None if self.address.master is None else MasterWatch(self.address)
        self._links: list[Link] = [
            ThreadLink(self.address, self.patience, self.durability, self.masters)
        ]
        self._own = _local()

    def _link(self, *, is_write: bool) -> Link:
        hub = get_hub_if_exists()
        if hub is None:
            return self._links[0]
        name = self._written if is_write else _READ
        link: HubLink | None = getattr(self._own, name, None)
        if link is None or link.hub is not hub:
            link = HubLink(self.address, self.patience, hub, Durability(name), self.masters)
            setattr(self._own, name, link)
            self._links.append(link)
        return link


_TRIAL = "redis.call('EXISTS', KEYS[1]) redis.call('DEL', unpack(KEYS))"
"""Nothing that a full Redis refuses."""


def _try_scripts(wire: Wire, address: Address) -> None:
    """Run a script on keys like those of a message, a queue and a claim, which do not exist.

    Raises `StoreUnavailable`; `UnsuitableStore` where scripts are refused.
    """
    keys = (str(uuid.uuid4()), f'{uuid.uuid4()}.check.messages', f'messages.{uuid.uuid4()}')
    digest = hashlib.sha1(_TRIAL.encode(), usedforsecurity=False).hexdigest()
    rest = (len(keys), *keys)
    try:
        try:
            wire.ask([('EVALSHA', digest, *rest)])
        except hiredis.ReplyError as error:
            if read_error(str(error))[0] is not Meaning.UNKNOWN_SCRIPT:
                raise
            wire.ask([('EVAL', _TRIAL, *rest)])
    except hiredis.ReplyError as error:
        meaning, reason = read_error(str(error))
        # What passes by itself is waited for by each call.
        if meaning is Meaning.REFUSED and reason not in WRITES_REFUSED:
            raise UnsuitableStore(
                address.store,
                f'refuses to run scripts: {reason}. The driver needs EVAL and EVALSHA, and a user '
                'that may use them on all keys; see "Redis" in docs/operators.md.',
            ) from None
    except OSError as error:
        raise StoreUnavailable(address.store, str(error)) from None


_registry: Registry[tuple[Address, Durability], RedisServer] = Registry()


def open_server(
    address: Address, patience: float, durability: Durability = Durability.MEMORY
) -> Handle[RedisServer]:
    """A handle of the server at an address.

    patience: seconds that a call waits for a connection, at most `PATIENCE_SECONDS`; the shortest
        of all handles holds. durability: what its writes survive.
    """

    def lower_patience(server: RedisServer) -> None:
        server.patience = min(patience, server.patience)

    patience = min(patience, PATIENCE_SECONDS)
    return _registry.open(
        (address, durability), lambda: RedisServer(address, patience, durability), lower_patience
    )
