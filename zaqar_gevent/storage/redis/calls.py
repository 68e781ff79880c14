"""Calls to one Redis server: commands and scripts, sent in batches; see `storage.core.links`.

Where writes are to be confirmed (see `durability`), one confirmation is asked for behind each
batch. The calls of the batch are answered when it has been given; without it they fail with
`OutcomeUnknown`.

Where Sentinels know the master, the calls are answered when the server is certain to be the master
still (see `sentinels`). A connection to another server is given up.
"""

from __future__ import annotations

import _socket
import collections
import socket
import time
from typing import Any

import gevent.socket
import hiredis
from gevent import monkey

from zaqar_gevent.storage.core import links
from zaqar_gevent.storage.core.links import PAUSE_SECONDS
from zaqar_gevent.storage.core.outages import OutageLog
from zaqar_gevent.storage.errors import OutcomeUnknown, StoreUnavailable
from zaqar_gevent.storage.redis.addresses import Address
from zaqar_gevent.storage.redis.durability import Confirmation, Durability
from zaqar_gevent.storage.redis.outage import Meaning, read_error, read_mark
from zaqar_gevent.storage.redis.sentinels import MasterWatch
from zaqar_gevent.storage.redis.wire import CHUNK, Command, Wire, dial, pack

_sleep = monkey.get_original('time', 'sleep')


class PendingCommand(links.Request):
    """A command on its way, packed.

    text: of the script that it runs by its digest, as long as the server may not know it.
    """

    __slots__ = ('command', 'data', 'text')

    def __init__(
        self, command: Command, text: str | None, until: float, *, is_repeatable: bool
    ) -> None:
        # Here, so that what cannot be packed fails the call alone.
        self.data = pack(command)
        self.command = command
        self.text = text
        # PERF: not by the base's, which would be a call more.
        self.size = len(self.data)
        self.until = until
        self.is_repeatable = is_repeatable
        self.answer = self.error = self.waiter = None


class HubLink(links.HubLink[PendingCommand]):
    """The connection of one hub to a server.

    patience: seconds that a call waits to be sent. durability: what its calls are to survive.
    masters: where Sentinels know the master.
    """

    def __init__(
        self,
        address: Address,
        patience: float,
        hub: Any,
        durability: Durability,
        masters: MasterWatch | None,
    ) -> None:
        super().__init__(
            address.store, hub, patience=patience, timeout=address.timeout, outages=OutageLog()
        )
        self._address = address
        self._durability = durability
        self._sent: collections.deque[PendingCommand] = collections.deque()
        # Answered, and to be confirmed by what was sent behind them.
        self._unconfirmed: list[PendingCommand] = []
        self._confirming: Confirmation | None = None
        # Answered, and confirmed, by what may not be the master any more.
        self._uncertain: list[PendingCommand] = []
        self._unsent = b''
        self._wire: Wire
        self._masters = masters
        self._unsubscribe = None if masters is None else masters.subscribe(hub, self._check_master)

    def call(self, command: Command, text: str | None, *, is_repeatable: bool) -> Any:
        """The answer to a command; raises `StoreUnavailable`.

        text: of the script, where the command is EVALSHA.
        """
        until = time.monotonic() + self._patience
        return self.ask(PendingCommand(command, text, until, is_repeatable=is_repeatable))

    def close(self) -> None:
        super().close()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _dial(self) -> None:
        wire = dial_master(self._address, gevent.socket, self._durability, self._masters)
        self._wire = _without_gevent(wire)

    @property
    def _descriptor(self) -> int:
        return int(self._wire.sock.fileno())

    def _hang_up(self) -> None:
        self._wire.close()

    def _was_hung_up(self) -> bool:
        try:
            return not self._wire.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _may_send(self) -> bool:
        return not self._sent and self._confirming is None and not self._uncertain

    def _is_in_flight(self) -> bool:
        return not self._may_send()

    def _take_in_flight(self) -> list[PendingCommand]:
        in_flight = [*self._uncertain, *self._unconfirmed, *self._sent]
        self._sent.clear()
        self._uncertain = []
        self._unconfirmed = []
        self._confirming = None
        return in_flight

    def _silence(self) -> float:
        waits = 0.0 if self._confirming is None else self._confirming.seconds
        return super()._silence() + waits

    def _send(self, requests: list[PendingCommand]) -> bool:
        if self._masters is not None and self._masters.is_outdated(self._wire.host):
            self._waiting.extendleft(reversed(requests))
            raise OSError(self._masters.reason)
        self._sent.extend(requests)
        packed = [request.data for request in requests]
        self._confirming = self._wire.confirmation
        if self._confirming is not None:
            packed.append(pack(self._confirming.command))
        self._unsent = self._wire.encode(b''.join(packed))
        return self._send_rest()

    def _send_rest(self) -> bool:
        try:
            count = self._wire.sock.send(self._unsent)
        except BlockingIOError:
            return False
        self._unsent = self._unsent[count:]
        return not self._unsent

    def _receive(self) -> None:
        answers: list[Any] = []
        try:
            while True:
                data = self._wire.sock.recv(CHUNK)
                if not data:
                    raise OSError('it has closed the connection')
                self._heard_at = time.monotonic()
                answers += self._wire.decode(data)
                if len(data) < CHUNK:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self._take(answers)
            raise
        self._take(answers)

    def _take(self, answers: list[Any]) -> None:
        """Give answers to the commands that they are for."""
        answered: list[PendingCommand] = []
        retried: list[PendingCommand] = []
        lost: str | None = None
        for answer in answers:
            if self._sent:
                call = self._sent.popleft()
                if self._confirming is None and not isinstance(answer, hiredis.ReplyError):
                    call.answer = answer
                    answered.append(call)
                else:
                    lost = self._classify(call, answer, answered, retried) or lost
            elif self._confirming is not None:
                answered += self._confirm(answer)
            else:
                lost = 'it answers what nobody asked'
                break
        if retried:
            self._waiting.extendleft(reversed(retried))
        if self._masters is not None:
            answered = self._hold_uncertain(answered, self._masters)
        if answered and self._outages.is_on and not isinstance(answers[-1], hiredis.ReplyError):
            self._outages.succeeded()
        if lost is not None:
            self._lose(lost)
        self._settled(answered)

    def _hold_uncertain(
        self, answered: list[PendingCommand], masters: MasterWatch
    ) -> list[PendingCommand]:
        """Keep back the answers that may come from a former master; returns the others."""
        if masters.is_current(self._wire.host):
            return answered
        self._uncertain += [call for call in answered if call.error is None]
        if self._uncertain:
            masters.refresh()
        return [call for call in answered if call.error is not None]

    def _check_master(self) -> None:
        """Give the connection up if it leads to a former master, or let held answers go."""
        assert self._masters is not None
        if not self._is_connected:
            return
        if self._masters.is_outdated(self._wire.host):
            self._lose(self._masters.reason)
        elif self._uncertain:
            if self._masters.is_current(self._wire.host):
                certain, self._uncertain = self._uncertain, []
                self._settled(certain)
            else:
                self._masters.refresh()

    def _tick(self) -> None:
        if self._uncertain:
            self._check_master()
        super()._tick()

    def _classify(
        self,
        call: PendingCommand,
        answer: Any,
        answered: list[PendingCommand],
        retried: list[PendingCommand],
    ) -> str | None:
        """Put a call where it belongs by its answer.

        Returns why the server is of no use any more, if the answer says so.
        """
        if not isinstance(answer, hiredis.ReplyError):
            call.answer = answer
            self._unconfirmed.append(call)
            return None
        meaning, reason = read_error(str(answer))
        if meaning is Meaning.UNKNOWN_SCRIPT and call.text is not None:
            call.data, call.text = pack(_with_text(call.command, call.text)), None
            retried.append(call)
        elif meaning in (Meaning.WRONG_SERVER, Meaning.NOT_NOW):
            # Not begun: it is asked again on a new connection, as long as there is time.
            self._waiting.appendleft(call)
            self._is_unfit = True
            return reason
        elif meaning is Meaning.MOVED:
            call.error = read_mark(str(answer))
            answered.append(call)
        else:
            error = self._unavailable(reason)
            self._outages.refused(error)
            call.error = error
            answered.append(call)
        return None

    def _confirm(self, answer: Any) -> list[PendingCommand]:
        """The calls that a confirmation was for; without it their outcome is unknown."""
        assert self._confirming is not None
        confirming, self._confirming = self._confirming, None
        calls, self._unconfirmed = self._unconfirmed, []
        if calls and not confirming.is_given(answer):
            self._outages.refused(self._unavailable(confirming.failure))
            for call in calls:
                call.error = OutcomeUnknown(self._store, confirming.failure)
        return calls


class ThreadLink(links.ThreadLink):
    """The connection for native threads that have no hub."""

    def __init__(
        self,
        address: Address,
        patience: float,
        durability: Durability,
        masters: MasterWatch | None,
    ) -> None:
        super().__init__(address.store, patience)
        self._masters = masters
        self._address = address
        self._durability = durability
        self._wire: Wire | None = None

    def call(self, command: Command, text: str | None, *, is_repeatable: bool) -> Any:
        """See `HubLink.call`."""
        until = self.new_until()
        with self._lock:
            while True:
                self._connect(until)
                assert self._wire is not None
                if self._masters is not None and self._masters.is_outdated(self._wire.host):
                    self.close()
                    continue
                try:
                    return self._ask(self._wire, command)
                except hiredis.ReplyError as error:
                    meaning, reason = read_error(str(error))
                    if meaning is Meaning.UNKNOWN_SCRIPT and text is not None:
                        command, text = _with_text(command, text), None
                        continue
                    if meaning is Meaning.MOVED:
                        raise read_mark(str(error)) from None
                    if meaning in (Meaning.REFUSED, Meaning.UNKNOWN_SCRIPT):
                        raise StoreUnavailable(self._store, reason) from None
                    self.close()
                    if time.monotonic() > until:
                        raise StoreUnavailable(self._store, reason) from None
                    _sleep(PAUSE_SECONDS)
                except OSError as error:
                    self.close()
                    if not is_repeatable or time.monotonic() > until:
                        raise OutcomeUnknown(self._store, str(error)) from None

    def _ask(self, wire: Wire, command: Command) -> Any:
        confirming = wire.confirmation
        if confirming is None:
            [answer] = wire.ask([command])
        else:
            answer, confirmed = wire.ask([command, confirming.command])
            if not confirming.is_given(confirmed):
                raise OutcomeUnknown(self._store, confirming.failure)
        if self._masters is not None:
            self._masters.await_current(wire.host)
        return answer

    def _dial(self) -> None:
        self._wire = dial_master(self._address, _socket, self._durability, self._masters)

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def _with_text(command: Command, text: str) -> Command:
    """What runs the script of an EVALSHA on a server that does not know it."""
    return ('EVAL', text, *command[2:])


def dial_master(
    address: Address, sockets: Any, durability: Durability, masters: MasterWatch | None
) -> Wire:
    """A connection as by `dial`, to the master that `masters` knows."""
    if masters is None:
        return dial(address, sockets, durability)
    masters.start()
    if masters.is_failing_over:
        raise StoreUnavailable(address.store, masters.reason)
    return dial(address, sockets, durability, masters.master)


def _without_gevent(wire: Wire) -> Wire:
    """The same connection by a bare socket that never waits.

    PERF: gevent's would begin to wait, and raise, on each read that is one too many.
    """
    sock = wire.sock
    bare = _socket.socket(sock.family, sock.type, sock.proto, sock.detach())
    bare.setblocking(False)
    wire.sock = bare
    return wire


Link = HubLink | ThreadLink
