"""One connection to Redis: opened, greeted and spoken to in RESP, over TCP, Unix sockets or TLS.

Everything that waits uses the sockets of a module that is handed in: gevent's where greenlets wait,
the interpreter's own elsewhere.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
from oslo_log import log

from zaqar_gevent.storage.errors import StoreUnavailable, UnsuitableStore
from zaqar_gevent.storage.redis.addresses import Address, Credentials, Host
from zaqar_gevent.storage.redis.durability import (
    Confirmation,
    Durability,
    Unsupported,
    confirm_by_fsync,
    confirm_by_replica,
)
from zaqar_gevent.storage.redis.outage import read_error

LOG = log.getLogger(__name__)

Command = tuple[Any, ...]

pack = hiredis.pack_command

CHUNK = 64 * 1024
"""Bytes that are read at a time."""


_NOTHING = object()
_NAME = 'zaqar_gevent'
_LEAST_VERSION = (5, 0)


class Wire:
    """The bytes of one connection.

    host: where it leads to; None for a Unix socket. confirmation: what is to be sent behind writes,
        if anything.
    """

    def __init__(self, sock: Any, host: Host | None) -> None:
        self.sock = sock
        self.host = host
        self.confirmation: Confirmation | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING, replyError=hiredis.ReplyError)

    def encode(self, data: bytes) -> bytes:
        """The bytes to send for packed commands."""
        if self._tls is None:
            return data
        self._tls.write(data)
        return self._outgoing.read()

    def decode(self, data: bytes) -> list[Any]:
        """The answers that are complete with `data`; an error is a `hiredis.ReplyError`.

        Raises `OSError` for what is no answer of Redis.
        """
        try:
            if self._tls is None:
                self._reader.feed(data)
            else:
                self._incoming.write(data)
                self._decrypt(self._tls)
            answers = []
            while (answer := self._reader.gets()) is not _NOTHING:
                answers.append(answer)
            return answers
        except hiredis.ProtocolError as error:
            raise OSError(str(error)) from None

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` and wait for their answers; raises `OSError`, `hiredis.ReplyError`."""
        self.sock.sendall(self.encode(b''.join([pack(command) for command in commands])))
        answers: list[Any] = []
        while len(answers) < len(commands):
            data = self.sock.recv(CHUNK)
            if not data:
                raise OSError('it has closed the connection')
            answers += self.decode(data)
        for answer in answers:
            if isinstance(answer, hiredis.ReplyError):
                raise answer
        return answers

    def secure(self, name: str) -> None:
        """Begin TLS with the server of this name."""
        tls = ssl.create_default_context().wrap_bio(
            self._incoming, self._outgoing, server_hostname=name
        )
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                data = self.sock.recv(CHUNK)
                if not data:
                    raise OSError('it has closed the connection') from None
                self._incoming.write(data)
                continue
            break
        rest = self._outgoing.read()
        if rest:
            self.sock.sendall(rest)
        self._tls = tls

    def close(self) -> None:
        self.sock.close()

    def _decrypt(self, tls: ssl.SSLObject) -> None:
        try:
            while data := tls.read(CHUNK):
                self._reader.feed(data)
        except ssl.SSLWantReadError:
            return


def dial(
    address: Address,
    sockets: Any,
    durability: Durability = Durability.MEMORY,
    master: Host | None = None,
) -> Wire:
    """A connection to the server that is to be written, greeted.

    sockets: the module whose sockets wait: `gevent.socket` or `_socket`. durability: what its
        writes are to survive. master: where the Sentinels have said that it is; None: they are
        asked.

    Raises `StoreUnavailable`; `UnsuitableStore` where it could not keep messages.
    """
    try:
        if address.master is None:
            [host] = address.hosts or (None,)
            return _greet(address, host, sockets, durability)
        return _greet(address, master or _find_master(address, sockets), sockets, durability)
    except UnsuitableStore:
        raise
    except hiredis.ReplyError as error:
        raise StoreUnavailable(address.store, read_error(str(error))[1]) from None
    except (OSError, ValueError) as error:
        raise StoreUnavailable(address.store, _describe(error)) from None


def _greet(address: Address, host: Host | None, sockets: Any, durability: Durability) -> Wire:
    wire = _open(address, host, sockets)
    try:
        commands = _authenticate(address.credentials)
        if address.database:
            commands.append(('SELECT', address.database))
        facts = _read_facts(wire.ask([*commands, ('INFO',)])[-1].decode())
        _check(address, facts)
        _name(wire)
        wire.confirmation = _confirmation(address, facts, wire, durability)
        if wire.confirmation is not None:
            wire.sock.settimeout(address.timeout + wire.confirmation.seconds)
    except BaseException:
        wire.close()
        raise
    return wire


def _name(wire: Wire) -> None:
    """Name the connection, for people who list those of Redis; not every user may."""
    try:
        wire.ask([('CLIENT', 'SETNAME', _NAME)])
    except hiredis.ReplyError as error:
        LOG.debug('Redis does not name the connection: %s', read_error(str(error))[1])


def _read_facts(info: str) -> dict[str, str]:
    return dict(line.split(':', 1) for line in info.splitlines() if ':' in line)


def _version(facts: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(part) for part in facts.get('redis_version', '0').split('.')[:2])


def _confirmation(
    address: Address, facts: dict[str, str], wire: Wire, durability: Durability
) -> Confirmation | None:
    if durability is Durability.MEMORY:
        return None
    if durability is Durability.REPLICA:
        if facts.get('connected_slaves') == '0':
            LOG.warning(
                'Redis at %s has no replica. With durability = replica, writes are answered with '
                '503 until a replica has connected.',
                address,
            )
        return confirm_by_replica(address.timeout)
    policy: str | None = None
    try:
        [(_, found)] = wire.ask([('CONFIG', 'GET', 'appendfsync')])
        policy = found.decode()
    except hiredis.ReplyError as error:
        # The user may not ask that.
        LOG.info('Redis at %s does not tell its appendfsync: %s', address, error)
    try:
        return confirm_by_fsync(_version(facts), policy, has_log=facts.get('aof_enabled') == '1')
    except Unsupported as error:
        raise UnsuitableStore(address.store, str(error)) from None


def _check(address: Address, facts: dict[str, str]) -> None:
    """Raise an error for a server that cannot keep messages, by what it says of itself."""
    if _version(facts) < _LEAST_VERSION:
        version = facts.get('redis_version', 'of an unknown version')
        raise UnsuitableStore(address.store, f'is {version}; it must be 5.0 or later.')
    if facts.get('cluster_enabled') == '1':
        raise UnsuitableStore(
            address.store,
            'is part of a Redis Cluster, which the keys of Zaqar cannot be spread over. Use single '
            'servers, and several of them as pools.',
        )
    policy = facts.get('maxmemory_policy', 'noeviction')
    if policy != 'noeviction' and facts.get('maxmemory', '0') != '0':
        raise UnsuitableStore(
            address.store,
            f'removes keys when its memory is full (maxmemory-policy {policy}), so messages would '
            'be lost. Set maxmemory-policy to noeviction.',
        )
    if address.master is not None and facts.get('role') != 'master':
        raise OSError('Sentinel names a server as the master that is none (any more)')


class Opinion(NamedTuple):
    """What a Sentinel says of the master.

    epoch: of its configuration; the highest of all Sentinels is the newest. is_failing_over:
        whether it is about to make another server the master. asked_at: by `time.monotonic`.
    """

    master: Host
    epoch: int
    is_failing_over: bool
    asked_at: float


def open_sentinel(address: Address, sentinel: Host, sockets: Any) -> Wire:
    """A connection to a Sentinel; raises `OSError`, `hiredis.ReplyError`."""
    wire = _open(address, sentinel, sockets)
    try:
        wire.ask(_authenticate(address.sentinel_credentials))
    except BaseException:
        wire.close()
        raise
    return wire


def ask_sentinel(address: Address, wire: Wire) -> Opinion:
    """The opinion of the Sentinel that a connection leads to.

    Raises `OSError` if it does not know the master, `hiredis.ReplyError`.
    """
    asked_at = time.monotonic()
    named, listed = wire.ask(
        [
            ('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', address.master),
            ('SENTINEL', 'MASTER', address.master),
        ]
    )
    if not named:
        raise OSError('it does not know the master')
    facts = dict(zip(listed[::2], listed[1::2], strict=True))
    # From the promotion on it names the new master, while it still lists the old one.
    is_promoted = named != [facts[b'ip'], facts[b'port']]
    is_failing_over = b'failover_in_progress' in facts[b'flags'].split(b',')
    return Opinion(
        (named[0].decode(), int(named[1])),
        int(facts[b'config-epoch']),
        is_failing_over and not is_promoted,
        asked_at,
    )


def _find_master(address: Address, sockets: Any) -> Host:
    """Where the master is, as the first Sentinel that answers says."""
    reasons = []
    for host in address.hosts:
        try:
            wire = open_sentinel(address, host, sockets)
            try:
                opinion = ask_sentinel(address, wire)
            finally:
                wire.close()
        except (OSError, hiredis.ReplyError) as error:
            reasons.append(f'{host[0]}:{host[1]}: {_describe(error)}')
            continue
        if opinion.is_failing_over:
            raise OSError('Sentinel makes another server the master')
        return opinion.master
    raise OSError(f'no Sentinel knows the master {address.master} ({"; ".join(reasons)})')


def _authenticate(credentials: Credentials) -> list[Command]:
    if credentials.password is None:
        return []
    words = [credentials.user] if credentials.user else []
    words.append(credentials.password)
    return [('AUTH', *(word.encode(errors='surrogateescape') for word in words))]


def _open(address: Address, host: Host | None, sockets: Any) -> Wire:
    if host is None:
        return Wire(_connect(sockets, sockets.AF_UNIX, address.path, address.timeout), None)
    error = OSError(f'{host[0]} has no address')
    for family, _, _, _, place in sockets.getaddrinfo(*host, 0, sockets.SOCK_STREAM):
        try:
            wire = Wire(_connect(sockets, family, place, address.timeout), host)
        except OSError as failure:
            error = failure
            continue
        wire.sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        if address.is_secure:
            try:
                wire.secure(host[0])
            except BaseException:
                wire.close()
                raise
        return wire
    raise error


def _connect(sockets: Any, family: int, place: Any, timeout: float) -> Any:
    sock = sockets.socket(family, sockets.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return 'it does not answer'
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__
