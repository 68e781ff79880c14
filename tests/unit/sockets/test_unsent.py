"""What waits to be written to all clients of a process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import gevent
import pytest
from gevent import socket as gevent_socket

from zaqar_gevent.sockets import unsent as module
from zaqar_gevent.sockets.hangup import has_hung_up
from zaqar_gevent.sockets.outbox import Outbox
from zaqar_gevent.sockets.unsent import Exhausted, Unsent

LIMIT = 1_000_000
MB = 1 << 20


class Held:
    """What waits for a client that is not there."""

    def __init__(self, unsent: Unsent, size: int, moved_at: float) -> None:
        self._unsent = unsent
        self.size = size
        self.moved_at = moved_at
        self.is_cut = False
        unsent.add(self, size)

    def look(self, now: float) -> None:
        """It is not known what the system holds."""

    def cut(self) -> None:
        self.is_cut = True
        size, self.size = self.size, 0
        self._unsent.remove(self, size)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'TICK_SECONDS', 0.01)
    monkeypatch.setattr(module, 'ROOM_SECONDS', 0.05)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's socket and its client's, which hold little by themselves."""
    ours, theirs = gevent_socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_client_that_takes_nothing_in_time_is_cut() -> None:
    unsent = Unsent(LIMIT, write_timeout=5.0)
    now = time.monotonic()
    late, prompt = Held(unsent, 10, now - 6), Held(unsent, 10, now)
    gevent.sleep(0.05)
    assert (late.is_cut, prompt.is_cut, unsent.size) == (True, False, 10)


def test_past_the_limit_those_that_have_stalled_longest_are_cut_until_there_is_room() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    now = time.monotonic()
    longest = Held(unsent, 400_000, now - 9)
    longer = Held(unsent, 400_000, now - 3)
    moving = Held(unsent, 400_000, now)
    gevent.sleep(0.05)
    assert [held.is_cut for held in (longest, longer, moving)] == [True, False, False]
    assert unsent.size == 800_000


def test_work_with_a_long_answer_waits_for_room() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    held = Held(unsent, LIMIT + 1, time.monotonic())
    gevent.spawn_later(0.02, held.cut)
    with unsent.answer_limiter.place('a'):
        assert held.is_cut


def test_work_is_refused_where_there_is_no_room_in_time() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    Held(unsent, LIMIT + 1, time.monotonic())
    with pytest.raises(Exhausted), unsent.answer_limiter.place('a'):
        raise AssertionError('there is no room')


def answer(unsent: Unsent, project: str, size: int = 1) -> None:
    with unsent.answer_limiter.place(project) as has_waited:
        assert not has_waited
    unsent.answer_limiter.report(project, size)


def test_one_project_has_one_place_for_large_answers_and_another_finds_one() -> None:
    """Whether it has not been answered yet, or its latest answer was large."""
    unsent = Unsent(LIMIT, write_timeout=100.0)
    for _ in range(2):
        with unsent.answer_limiter.place('a'):
            with pytest.raises(Exhausted), unsent.answer_limiter.place('a'):
                raise AssertionError('there is no place')
            with unsent.answer_limiter.place('b') as has_waited:
                assert not has_waited
                with pytest.raises(Exhausted), unsent.answer_limiter.place('c'):
                    raise AssertionError('there is no place')
        for project in 'abc':
            unsent.answer_limiter.report(project, module.LARGE_BYTES)


def test_large_answers_delay_no_project_whose_answers_are_small() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    answer(unsent, 'small')
    with ExitStack() as stack:
        for project in ('a', 'b'):
            assert not stack.enter_context(unsent.answer_limiter.place(project))
        assert not stack.enter_context(unsent.answer_limiter.place('small'))


def test_more_are_served_at_once_after_small_answers_and_one_after_a_large_one() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    for _ in range(module.LONG_PER_PROJECT):
        answer(unsent, 'a')
    with ExitStack() as stack:
        for _ in range(module.LONG_PER_PROJECT):
            assert not stack.enter_context(unsent.answer_limiter.place('a'))
        with pytest.raises(Exhausted):
            stack.enter_context(unsent.answer_limiter.place('a'))
    answer(unsent, 'a', module.LARGE_BYTES)
    with (
        unsent.answer_limiter.place('a') as has_waited,
        pytest.raises(Exhausted),
        unsent.answer_limiter.place('a'),
    ):
        raise AssertionError('there is no place')
    assert not has_waited


def test_a_project_is_forgotten_only_when_none_of_its_requests_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, 'MAX_REMEMBERED', 2)
    unsent = Unsent(LIMIT, write_timeout=100.0)
    with unsent.answer_limiter.place('a'):
        for number in range(5):
            answer(unsent, str(number))
        with pytest.raises(Exhausted), unsent.answer_limiter.place('a'):
            raise AssertionError('there is no place')


def test_projects_that_wait_take_turns_and_are_told_that_they_have_waited() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    order: list[str] = []
    waits: list[bool] = []

    def work(name: str) -> None:
        with unsent.answer_limiter.place(name[0]) as has_waited:
            order.append(name)
            waits.append(has_waited)
            gevent.sleep(0)
            raise ValueError

    names = ('a1', 'b1', 'a2', 'a3', 'a4', 'c1', 'd1')
    greenlets = [gevent.Greenlet(work, name) for name in names]
    for greenlet in greenlets:
        greenlet.start()
    gevent.joinall(greenlets)
    assert waits == [False] * 2 + [True] * 5
    assert sorted(order) == sorted(names)
    # 'a' has one place at most, and the others come before its third request.
    assert order[:2] == ['a1', 'b1']
    assert max(order.index('c1'), order.index('d1')) < order.index('a3')


def test_a_request_that_is_ended_while_it_waits_leaves_its_turn_to_the_next() -> None:
    unsent = Unsent(LIMIT, write_timeout=100.0)
    served: list[int] = []

    def work(number: int) -> None:
        with unsent.answer_limiter.place('a'):
            served.append(number)

    with unsent.answer_limiter.place('a'):
        greenlets = [gevent.spawn(work, number) for number in range(3)]
        gevent.sleep(0)
        greenlets[0].kill()
    # It has been given the place, but does not run yet.
    greenlets[1].kill()
    gevent.joinall(greenlets)
    assert 0 not in served
    assert served[-1] == 2


def test_what_waits_in_outboxes_is_counted_until_it_is_taken_or_forgotten(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    unsent = Unsent(LIMIT, write_timeout=100.0)
    outbox = Outbox(ours, LIMIT, 100, unsent)
    outbox.put([b'x' * 500_000])
    assert unsent.size == outbox.size > 400_000
    taken = 0
    while taken < 500_000:
        taken += len(theirs.recv(65536))
    gevent.sleep(0.01)
    assert unsent.size == outbox.size == 0
    outbox.put([b'x' * 500_000])
    assert unsent.size > 0
    outbox.close()
    assert unsent.size == 0


def test_a_long_answer_is_not_written_at_once_however_fast_it_is_taken() -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener, ExitStack() as stack:
        theirs = stack.enter_context(socket.create_connection(listener.getsockname()))
        ours = stack.enter_context(gevent_socket.socket(fileno=listener.accept()[0].detach()))
        reader = threading.Thread(target=lambda: [None for _ in iter(lambda: theirs.recv(MB), b'')])
        reader.start()
        outbox = Outbox(ours, LIMIT, 100)
        outbox.put([b'x' * (8 * MB)])
        outbox.put([b''])
        assert outbox.size >= 7 * MB
        outbox.wait_until_empty()
        reader.join()


def test_what_cannot_be_written_is_undone_and_what_was_written_is_not(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    outbox = Outbox(ours, LIMIT, 100)
    undone: list[str] = []
    for name, size in (('at once', 10), ('read', 100_000), ('not read', 100_000)):
        outbox.put([b'x' * size])
        outbox.unless_written(lambda name=name: undone.append(name))  # type: ignore[misc]
    taken = 0
    while taken < 110_000:
        taken += len(theirs.recv(65536))
    gevent.sleep(0.01)
    assert undone == []
    outbox.cut()
    gevent.sleep(0.01)
    assert undone == ['not read']
    outbox.unless_written(lambda: undone.append('too late'))
    gevent.sleep(0.01)
    assert undone == ['not read', 'too late']


def test_a_hang_up_is_noticed_behind_what_was_sent_before() -> None:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with ours:
            assert not has_hung_up(ours)
            theirs.sendall(b'not read yet')
            assert not has_hung_up(ours)
            theirs.close()
            deadline = time.monotonic() + 2
            while not has_hung_up(ours):
                assert time.monotonic() < deadline
        assert has_hung_up(ours)
