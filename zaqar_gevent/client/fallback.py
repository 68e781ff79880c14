"""When to try the WebSocket, when to be content with REST: a state machine without I/O.

::

                  opened                        lost 3 times in 60 s
    connecting ───────────► websocket ────────────────────────────► polling
        │  ▲                    │                                      │
        │  └────────────────────┘ lost                                 │
        └─────────────────────────────────────────────────────────────►│
          refused, filtered, or lost 3 times in 60 s                   │
                                ▲                                      │
                                └──────────────────────────────────────┘
                                  opened, tried every 60 s

Who drives it asks `wait_seconds` when to try next, says `attempting` when it does, and then what
came of it. The clock (seconds, as `time.monotonic`) and the random numbers (0 to 1, as
`random.random`) are handed in.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Literal

State = Literal['connecting', 'websocket', 'polling', 'closed']
Transport = Literal['auto', 'websocket', 'rest']

# No 101, or no word after it, within that time: something on the way does not let it through.
HANDSHAKE_SECONDS = 3.0
# So many connections lost within that time: it is let through, but does not last.
MAX_LOSSES = 3
LOSSES_SECONDS = 60.0
# How often the WebSocket is tried again from REST.
RETRY_SECONDS = 60.0
# Reconnection: up to 0.1 s, 0.2 s, 0.4 s... 30 s, the time itself at random (full jitter).
BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 30.0
# The least of those where connections keep dying and there is nothing to fall back to.
LOSING_BACKOFF_SECONDS = 1.0

# While somebody waits for a connection, it is no longer than up to that.
WANTED_BACKOFF_SECONDS = 2.0


class Fallback:
    """Which transport is in use, and when to try the WebSocket next.

    transport: `rest` is always polling, `websocket` never. retry_seconds: how often the WebSocket
    is tried again from REST.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Callable[[], float],
        random: Callable[[], float],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._transport = transport
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._backoff = Backoff(random)
        self._losses: collections.deque[float] = collections.deque(maxlen=MAX_LOSSES)
        self._random = random
        self._if_wanted_at: float | None = None
        self._try_at: float | None = None if transport == 'rest' else clock()
        self.state: State = 'polling' if transport == 'rest' else 'connecting'

    def wait_seconds(self) -> float | None:
        """For how long not to try the WebSocket yet; None while it is open or not to be tried."""
        if self._try_at is None:
            return None
        return max(self._try_at - self._clock(), 0.0)

    def wanted(self) -> bool:
        """Somebody waits for a connection: try sooner, unless the server said when; whether that is
        sooner than before."""
        if self._try_at is None or self._if_wanted_at is None:
            return False
        is_sooner = self._if_wanted_at < self._try_at
        self._try_at = min(self._try_at, self._if_wanted_at)
        return is_sooner

    def attempting(self) -> None:
        """The WebSocket is being tried."""
        self._try_at = self._if_wanted_at = None

    def opened(self) -> None:
        """It opened, and the server has spoken over it."""
        if self.state != 'closed':
            self.state = 'websocket'
            self._backoff.reset()

    def refused(self) -> None:
        """The handshake was answered, but not with 101."""
        self._fall_back()

    def filtered(self) -> None:
        """Nothing came within HANDSHAKE_SECONDS, though the server could be reached."""
        self._fall_back()

    def unreachable(self) -> None:
        """The server could not be reached at all, so neither over REST: try on."""
        if self.state != 'closed':
            self._try_again()

    def lost(self, reconnect_after_ms: int | None = None) -> None:
        """The connection, or the attempt at one, ended.

        reconnect_after_ms: when to come back, where the server said so before it closed; such an
        end counts for nothing.
        """
        if self.state == 'closed':
            return
        if self.state == 'polling':
            self._try_in(self._retry_seconds)
            return
        self.state = 'connecting'
        if reconnect_after_ms is not None:
            self._try_in(reconnect_after_ms / 1000)
            return
        self._losses.append(self._clock())
        if self._is_losing():
            self._fall_back()
        else:
            self._try_again()

    def close(self) -> None:
        """Nothing is to be tried any more."""
        self.state = 'closed'
        self._try_at = None

    def _fall_back(self) -> None:
        if self.state == 'closed':
            return
        if self._transport == 'auto':
            self.state = 'polling'
            self._losses.clear()
            self._backoff.reset()
        self._try_again()

    def _is_losing(self) -> bool:
        """Whether so many connections were lost lately that the next is not likely to last."""
        losses = self._losses
        return len(losses) == MAX_LOSSES and self._clock() - losses[0] <= LOSSES_SECONDS

    def _try_again(self) -> None:
        if self.state == 'polling':
            self._try_in(self._retry_seconds)
            return
        self._try_in(self._backoff.next(LOSING_BACKOFF_SECONDS if self._is_losing() else 0.0))
        self._if_wanted_at = self._clock() + WANTED_BACKOFF_SECONDS * self._random()

    def _try_in(self, seconds: float) -> None:
        self._try_at = self._clock() + seconds


class Backoff:
    """How long to wait after one failure more: exponential, with full jitter."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._ceiling = BACKOFF_SECONDS

    def next(self, least_ceiling: float = 0.0) -> float:
        """For how long to wait now, in seconds; `least_ceiling`: of the longest it may be."""
        ceiling = max(self._ceiling, least_ceiling)
        self._ceiling = min(ceiling * 2, MAX_BACKOFF_SECONDS)
        return ceiling * self._random()

    def reset(self) -> None:
        """It went well: begin anew."""
        self._ceiling = BACKOFF_SECONDS


class Pace:
    """How to ask a server for what is new, again and again.

    With long polling the server may wait for at most `longest` seconds at a time, and for less
    where something on the way cuts such requests short. Without it there is a pause after each
    answer that brings nothing, from MIN_PAUSE_SECONDS and twice as long each time.
    """

    MIN_PAUSE_SECONDS = 0.1
    MAX_PAUSE_SECONDS = 2.0
    MIN_WAIT_SECONDS = 1.0
    # A request that waits in a thread cannot be ended from another one: closing waits for it.
    MAX_WAIT_SECONDS = 5.0

    def __init__(self, longest: float = MAX_WAIT_SECONDS) -> None:
        self._pause = self.MIN_PAUSE_SECONDS
        self._longest = longest

    def wait(self, max_wait: float) -> float:
        """For how long the server is to wait for something; `max_wait` is the most it may."""
        return min(max_wait, self._longest)

    def cut(self, seconds: float) -> None:
        """A request that was to wait ended without an answer after so long."""
        self._longest = max(self.MIN_WAIT_SECONDS, min(self._longest, seconds / 2))

    def found(self) -> None:
        """An answer brought something."""
        self._pause = self.MIN_PAUSE_SECONDS

    def pause(self) -> float:
        """For how long to pause after an answer that brought nothing, in seconds."""
        pause = self._pause
        self._pause = min(pause * 2, self.MAX_PAUSE_SECONDS)
        return pause
