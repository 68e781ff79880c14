"""Which transport the client uses and when it tries the other, by a clock that tests move."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from zaqar_gevent.client.fallback import (
    HANDSHAKE_SECONDS,
    LOSING_BACKOFF_SECONDS,
    LOSSES_SECONDS,
    MAX_BACKOFF_SECONDS,
    MAX_LOSSES,
    RETRY_SECONDS,
    WANTED_BACKOFF_SECONDS,
    Backoff,
    Fallback,
    Pace,
    Transport,
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def the_longest() -> float:
    """The random number that makes each wait as long as it may be."""
    return 1.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auto(clock: Clock) -> Fallback:
    return Fallback('auto', clock, the_longest)


def connect(fallback: Fallback) -> None:
    fallback.attempting()
    fallback.opened()


def wait_out(fallback: Fallback, clock: Clock) -> None:
    """Let the time pass until the next attempt, and make it."""
    seconds = fallback.wait_seconds()
    assert seconds is not None
    clock.pass_by(seconds)
    assert fallback.wait_seconds() == 0
    fallback.attempting()


def test_it_connects_at_once(auto: Fallback) -> None:
    assert auto.state == 'connecting'
    assert auto.wait_seconds() == 0
    auto.attempting()
    assert auto.wait_seconds() is None
    auto.opened()
    assert auto.state == 'websocket'
    assert auto.wait_seconds() is None


def test_rest_alone_tries_nothing(clock: Clock) -> None:
    fallback = Fallback('rest', clock, the_longest)
    assert fallback.state == 'polling'
    assert fallback.wait_seconds() is None


@pytest.mark.parametrize('what', ['refused', 'filtered'])
def test_a_handshake_that_gets_nowhere_leads_to_rest_at_once(auto: Fallback, what: str) -> None:
    auto.attempting()
    getattr(auto, what)()
    assert auto.state == 'polling'
    assert auto.wait_seconds() == RETRY_SECONDS


def test_from_rest_the_websocket_is_tried_every_minute(auto: Fallback, clock: Clock) -> None:
    auto.attempting()
    auto.refused()
    for failed in (auto.refused, auto.filtered, auto.lost, auto.unreachable):
        wait_out(auto, clock)
        failed()
        assert auto.state == 'polling'
        assert auto.wait_seconds() == RETRY_SECONDS
    wait_out(auto, clock)
    auto.opened()
    assert auto.state == 'websocket'


def test_how_often_it_is_tried_may_be_said(clock: Clock) -> None:
    fallback = Fallback('auto', clock, the_longest, retry_seconds=5.0)
    fallback.attempting()
    fallback.refused()
    assert fallback.wait_seconds() == 5.0


def test_a_lost_connection_is_made_anew_soon(auto: Fallback) -> None:
    connect(auto)
    auto.lost()
    assert auto.state == 'connecting'
    assert auto.wait_seconds() == pytest.approx(0.1)


def test_connections_that_keep_dying_lead_to_rest(auto: Fallback, clock: Clock) -> None:
    connect(auto)
    for _ in range(MAX_LOSSES - 1):
        auto.lost()
        assert auto.state == 'connecting'
        wait_out(auto, clock)
        auto.opened()
        clock.pass_by(5)
    auto.lost()
    assert auto.state == 'polling'
    assert auto.wait_seconds() == RETRY_SECONDS


def test_attempts_that_die_count_as_connections_that_do(auto: Fallback, clock: Clock) -> None:
    auto.attempting()
    for _ in range(MAX_LOSSES - 1):
        auto.lost()
        wait_out(auto, clock)
    auto.lost()
    assert auto.state == 'polling'


def test_connections_that_die_seldom_do_not(auto: Fallback, clock: Clock) -> None:
    connect(auto)
    for _ in range(5 * MAX_LOSSES):
        clock.pass_by(LOSSES_SECONDS / (MAX_LOSSES - 1) + 1)
        auto.lost()
        assert auto.state == 'connecting'
        wait_out(auto, clock)
        auto.opened()


def test_back_from_rest_the_losses_are_counted_anew(auto: Fallback, clock: Clock) -> None:
    connect(auto)
    for _ in range(MAX_LOSSES):
        auto.lost()
        wait_out(auto, clock)
    assert auto.state == 'polling'
    auto.opened()
    auto.lost()
    assert auto.state == 'connecting'


def test_a_server_that_says_when_to_come_back_is_believed(auto: Fallback, clock: Clock) -> None:
    connect(auto)
    for _ in range(5 * MAX_LOSSES):
        auto.lost(reconnect_after_ms=326)
        assert auto.state == 'connecting'
        assert auto.wait_seconds() == pytest.approx(0.326)
        wait_out(auto, clock)
        auto.opened()


def test_a_server_that_cannot_be_reached_is_tried_on_without_rest(
    auto: Fallback, clock: Clock
) -> None:
    ceilings = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    auto.attempting()
    for ceiling in ceilings:
        auto.unreachable()
        assert auto.state == 'connecting'
        assert auto.wait_seconds() == pytest.approx(ceiling)
        wait_out(auto, clock)
    auto.opened()
    auto.lost()
    assert auto.wait_seconds() == pytest.approx(0.1)


def test_the_websocket_alone_never_polls(clock: Clock) -> None:
    fallback = Fallback('websocket', clock, the_longest)
    fallback.attempting()
    for failed in (fallback.refused, fallback.filtered, fallback.unreachable, fallback.lost):
        failed()
        assert fallback.state == 'connecting'
        seconds = fallback.wait_seconds()
        assert seconds is not None
        assert seconds <= MAX_BACKOFF_SECONDS
        wait_out(fallback, clock)


def test_with_nothing_to_fall_back_to_a_dying_connection_is_not_made_anew_at_once(
    clock: Clock,
) -> None:
    fallback = Fallback('websocket', clock, the_longest)
    connect(fallback)
    waits = []
    for _ in range(MAX_LOSSES + 1):
        fallback.lost()
        waits.append(fallback.wait_seconds())
        wait_out(fallback, clock)
        fallback.opened()
    assert waits[0] == waits[1] == pytest.approx(0.1)
    assert waits[2] == waits[3] == LOSING_BACKOFF_SECONDS


@pytest.mark.parametrize('transport', ['auto', 'websocket', 'rest'])
def test_what_is_closed_stays_closed(clock: Clock, transport: Transport) -> None:
    fallback = Fallback(transport, clock, the_longest)
    fallback.close()
    for happens in (
        *(fallback.opened, fallback.refused, fallback.filtered),
        *(fallback.unreachable, fallback.lost),
    ):
        happens()
        assert fallback.state == 'closed'
        assert fallback.wait_seconds() is None


def test_a_wait_that_is_over_is_no_wait(auto: Fallback, clock: Clock) -> None:
    connect(auto)
    auto.lost()
    clock.pass_by(3600)
    assert auto.wait_seconds() == 0


def test_backoff_has_full_jitter() -> None:
    numbers: Iterator[float] = itertools.cycle([0.0, 0.5, 1.0])
    backoff = Backoff(lambda: next(numbers))
    assert [backoff.next() for _ in range(3)] == pytest.approx([0.0, 0.1, 0.4])
    backoff.reset()
    assert [backoff.next() for _ in range(2)] == pytest.approx([0.0, 0.1])


def test_a_pause_grows_while_nothing_comes() -> None:
    pace = Pace()
    assert [pace.pause() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    pace.found()
    assert pace.pause() == pytest.approx(0.1)


def test_a_server_is_let_wait_as_long_as_it_may() -> None:
    pace = Pace()
    assert pace.wait(20) == Pace.MAX_WAIT_SECONDS
    assert pace.wait(1.5) == 1.5
    assert pace.wait(0) == 0


def test_a_server_is_let_wait_less_where_that_is_cut_short() -> None:
    pace = Pace()
    pace.cut(4.0)
    assert pace.wait(20) == 2.0
    pace.cut(30.0)
    assert pace.wait(20) == 2.0
    pace.cut(0.5)
    assert pace.wait(20) == Pace.MIN_WAIT_SECONDS


def unreachable_for_long(fallback: Fallback, clock: Clock) -> None:
    fallback.attempting()
    for _ in range(20):
        fallback.unreachable()
        wait_out(fallback, clock)
    fallback.unreachable()


def test_while_somebody_waits_it_is_tried_sooner(auto: Fallback, clock: Clock) -> None:
    unreachable_for_long(auto, clock)
    assert auto.wait_seconds() == MAX_BACKOFF_SECONDS
    assert auto.wanted()
    assert auto.wait_seconds() == WANTED_BACKOFF_SECONDS
    assert not auto.wanted()
    assert auto.wait_seconds() == WANTED_BACKOFF_SECONDS


def test_a_short_wait_is_not_made_longer_by_being_wanted(auto: Fallback) -> None:
    connect(auto)
    auto.lost()
    assert not auto.wanted()
    assert auto.wait_seconds() == pytest.approx(0.1)


def test_when_the_server_said_to_come_back_is_kept_to(auto: Fallback, clock: Clock) -> None:
    unreachable_for_long(auto, clock)
    connect(auto)
    auto.lost(reconnect_after_ms=9000)
    assert not auto.wanted()
    assert auto.wait_seconds() == 9.0


def test_an_open_connection_is_not_wanted_sooner(auto: Fallback) -> None:
    connect(auto)
    assert not auto.wanted()
    assert auto.wait_seconds() is None


def test_the_handshake_is_given_three_seconds() -> None:
    assert HANDSHAKE_SECONDS == 3.0
