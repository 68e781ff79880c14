"""Messages as they are pushed: the same bytes for many subscribers as for each alone."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from tests.unit.websocket.test_plain_messages import LIMITS
from zaqar_gevent.push.encoded import EncodedBatch, EncodedMessage, batches, format_of, prefix_of
from zaqar_gevent.push.tail import Entry
from zaqar_gevent.websocket.engines import load, message_head

ORDERS = 'orders'
BODIES = ['', 'x' * 100, {'snö': ['☃', 1, None]}, 'y' * 200, 'z' * 70_000, 0]
ENGINES = ['websockets', 'ws4py']


def messages(bodies: list[Any]) -> list[EncodedMessage]:
    """Messages with these bodies, as a feed reads them."""
    return [
        EncodedMessage(ORDERS, Entry(f'm{place}', {'id': f'i{place}', 'body': body, 'ttl': 60}))  # type: ignore[typeddict-item]
        for place, body in enumerate(bodies)
    ]


def alone(found: list[EncodedMessage], begin: bytes | None, *, binary: bool, engine: str) -> bytes:
    """What an engine sends for messages that are pushed one by one."""
    frames = load(engine)(LIMITS)
    for encoded in found:
        if begin is None:
            frames.send(encoded.default(binary=binary), binary=binary)
        else:
            frames.send(begin + encoded.suffix(binary=binary), binary=binary)
    return b''.join(frames.outgoing())


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('binary', [False, True])
@pytest.mark.parametrize('compact', [False, True])
def test_each_subscriber_gets_what_it_would_get_alone(
    compact: bool, binary: bool, engine: str
) -> None:
    found = messages(BODIES)
    batch = EncodedBatch(found)
    for name in ('first', 'other'):
        begin = prefix_of(name, binary=binary) if compact else None
        form = format_of(None if begin is None else len(begin), binary)
        head = load(engine)(LIMITS).frame_head
        assert head is not None
        pieces, size = batch.frames(form, head)
        frames = (begin or b'').join(pieces)
        assert frames == alone(found, begin, binary=binary, engine=engine)
        payloads = [len(begin or b'') + len(form.shared(encoded)) for encoded in found]
        assert size == sum(payloads)


@pytest.mark.parametrize('binary', [False, True])
def test_the_pieces_are_documents_once_the_subscriber_is_named(binary: bool) -> None:
    begin = prefix_of('mine', binary=binary)
    form = format_of(len(begin), binary)
    pieces, size = EncodedBatch(messages(['hello'])).frames(form, message_head)
    payload = begin.join(pieces)[-size:]
    document = msgpack.unpackb(payload) if binary else json.loads(payload)
    assert (document['subscription_id'], document['message']['body']) == ('mine', 'hello')
    assert (document['queue_name'], document['marker']) == (ORDERS, 'm0')


def test_forms_of_other_lengths_and_encodings_are_kept_apart() -> None:
    """Subscriptions whose ids are not of one length get other heads of frames."""
    batch = EncodedBatch(messages(BODIES))
    for name in ('a', 'a' * 60, 'b' * 200):
        begin = prefix_of(name, binary=False)
        pieces, _ = batch.frames(format_of(len(begin), False), message_head)
        expected = alone(list(batch.messages), begin, binary=False, engine='websockets')
        assert begin.join(pieces) == expected


def test_a_long_message_is_alone_and_short_ones_share_a_batch_up_to_64_kb() -> None:
    bodies = ['x', 'y', 'z' * 70_000, *['w' * 10_000] * 8]
    found = list(batches(messages(bodies), format_of(None, False)))
    assert [batch.count for batch in found] == [2, 1, 6, 2]
    assert [batch.marker for batch in found] == ['m1', 'm2', 'm8', 'm10']


def test_of_no_messages_there_are_no_batches() -> None:
    assert not list(batches([], format_of(None, False)))
