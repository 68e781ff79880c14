"""Random bytes that are got for many uses at once."""

from __future__ import annotations

import os

from zaqar_gevent.client.random_pool import RandomPool


def test_no_piece_is_given_twice() -> None:
    pool = RandomPool(10)
    pieces = [pool.take() for _ in range(1000)]
    assert {len(piece) for piece in pieces} == {10}
    assert len(set(pieces)) == 1000


def test_a_forked_process_gets_other_pieces() -> None:
    pool = RandomPool(10)
    pool.take()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b''.join(pool.take() for _ in range(50)))
        os._exit(0)
    os.waitpid(child, 0)
    with os.fdopen(reading, 'rb') as pipe:
        os.close(writing)
        text = pipe.read()
    of_child = {text[at : at + 10] for at in range(0, len(text), 10)}
    assert len(of_child) == 50
    assert not of_child & {pool.take() for _ in range(255)}
