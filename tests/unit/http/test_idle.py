"""Which of the connections that wait for a request gives its place to a new one."""

from __future__ import annotations

from typing import Any

from zaqar_gevent.http.idle import IdleConnections


class _Connection:
    """A connection of a client; has_sent: whether it has sent something that was not read."""

    def __init__(self, idle: IdleConnections, address: str, *, has_sent: bool = False) -> None:
        self._has_sent = has_sent
        self.waiting: dict[Any, None] = idle.join(address)
        self.waiting[self] = None

    def has_input(self) -> bool:
        return self._has_sent


def test_the_longest_wait_of_the_address_with_most_ends() -> None:
    idle = IdleConnections()
    _Connection(idle, '192.0.2.1')
    first, second = (_Connection(idle, '192.0.2.2') for _ in range(2))
    assert idle.longest() is first
    first.waiting.pop(first)
    first.waiting[first] = None
    assert idle.longest() is second


def test_a_connection_that_has_sent_something_is_passed_over() -> None:
    idle = IdleConnections()
    _Connection(idle, '192.0.2.1', has_sent=True)
    other = _Connection(idle, '192.0.2.1')
    assert idle.longest() is other


def test_where_none_waits_there_is_none() -> None:
    idle = IdleConnections()
    assert idle.longest() is None
    one = _Connection(idle, '192.0.2.1')
    one.waiting.pop(one)
    assert idle.longest() is None


def test_an_address_is_forgotten_with_its_last_connection() -> None:
    idle = IdleConnections()
    one, other = (_Connection(idle, '192.0.2.1') for _ in range(2))
    one.waiting.pop(one)
    idle.leave('192.0.2.1')
    assert idle.join('192.0.2.1') is other.waiting
    idle.leave('192.0.2.1')
    idle.leave('192.0.2.1')
    assert idle.join('192.0.2.1') is not other.waiting
