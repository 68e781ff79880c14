"""Pickles of plain data are read as Python reads them; nothing else is, whatever it would cost."""

from __future__ import annotations

import io
import json
import pathlib
import pickle
import random
import tracemalloc
from typing import Any

import pytest

from zaqar_gevent.encryption import pickled

PLAIN: list[Any] = [
    *(None, True, False, 0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, -(2**63), 2**64 - 1),
    *(0.0, -1.5, 1e300, '', 'text', 'ü' * 100, 'x' * 70_000, '\0', '\x80'),
    *([], {}, [[]], [{}], {'a': {}}, [1], [1, 2], {'a': 1}, {'a': 1, 'b': [None, {'c': 'd'}]}),
    *(list(range(3000)), {str(number): number for number in range(3000)}),
    [{'key': str(number % 3)} for number in range(5)],
]
PROTOCOLS = range(2, 6)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('value', PLAIN, ids=lambda value: repr(value)[:20])
def test_plain_data_is_read_as_it_was_written(value: Any, protocol: int) -> None:
    found = pickled.load(pickle.dumps(value, protocol))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('dump', [pickle.dumps, pickle._dumps], ids=['C', 'Python'])
def test_any_document_is_read_as_it_was_written(protocol: int, dump: Any) -> None:
    chooser = random.Random(protocol)

    def make(depth: int) -> Any:
        kind = chooser.randrange(8 if depth else 6)
        if kind < 6:
            return chooser.choice(PLAIN[:22])
        many = range(chooser.randrange(5))
        if kind == 6:
            return [make(depth - 1) for _ in many]
        return {chooser.choice('abcdefgh') * 3: make(depth - 1) for _ in many}

    for _ in range(300):
        # As JSON gives it: equal texts and numbers may be one object, lists and dicts are not.
        document = json.loads(json.dumps(make(5)))
        assert pickled.load(dump(document, protocol)) == document


class _Program:
    """Unpickling it creates a file."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self._path,)


@pytest.mark.parametrize('protocol', range(6))
def test_a_program_is_refused_and_not_run(tmp_path: pathlib.Path, protocol: int) -> None:
    target = tmp_path / 'created'
    with pytest.raises(pickled.NotPlainData):
        pickled.load(pickle.dumps([_Program(target)], protocol))
    assert not target.exists()


SHARED: list[Any] = [1]
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]

NOT_PLAIN = {
    'nothing': b'',
    'no protocol': b'N.',
    'text protocol': pickle.dumps(7, 0),
    'a protocol to come': b'\x80\x06N.',
    'no value': b'\x80\x04.',
    'two values': b'\x80\x04NN.',
    'a mark for a value': b'\x80\x04(.',
    'no end': b'\x80\x04N',
    'more behind the end': b'\x80\x04N.N',
    'a large memo index': b'\x80\x02r\xff\xff\xff\x7f.',
    'a large memo index for a value': b'\x80\x02Nr\xff\xff\xff\x7f.',
    'a memo index to come': b'\x80\x04h\x05.',
    'a long text that is not there': b'\x80\x04X\xff\xff\xff\x7fabc.',
    'a very long text that is not there': b'\x80\x04\x8d' + b'\xff' * 8 + b'.',
    'no UTF-8': b'\x80\x04\x8c\x01\xff.',
    'a lone surrogate': pickle.dumps('\ud800'),
    'an integer too large': pickle.dumps(2**64),
    'an integer much too large': pickle.dumps(1 << 5000),
    'bytes': pickle.dumps(b'bytes'),
    'a tuple': pickle.dumps((1, 2)),
    'a set': pickle.dumps({1}),
    'a list in two places': pickle.dumps([SHARED, SHARED]),
    'a key that is a number': pickle.dumps({1: 2}),
    'a key that is None': pickle.dumps({None: 2}),
    'a key that is a list': b'\x80\x04}]Ns.',
    'a key without a value': b'\x80\x04}(\x8c\x01au.',
    'members without a list': b'\x80\x04(NNe.',
    'members of a number': b'\x80\x04K\x01Na.',
    'items of a list': b'\x80\x04]\x8c\x01aNs.',
    'items of nothing': b'\x80\x04Ns.',
    'members without a mark': b'\x80\x04]NNe.',
    'a mark as a member': b'\x80\x04](a.',
    'too many levels': pickle.dumps(DEEP),
}


@pytest.mark.parametrize('data', NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_what_is_not_plain_data_is_refused(data: bytes) -> None:
    with pytest.raises(pickled.NotPlainData):
        pickled.load(data)


def test_a_list_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(pickled.NotPlainData):
        pickled.load(pickle.dumps(endless))


def test_a_long_text_repeated_without_end_is_refused() -> None:
    length = 100_000
    text = b'X' + length.to_bytes(4, 'little') + b'x' * length + b'\x94'
    with pytest.raises(pickled.NotPlainData, match='repeat'):
        pickled.load(b'\x80\x04](' + text + b'h\x00' * length + b'e.')


def test_a_long_key_of_many_members_is_read() -> None:
    document = json.loads(json.dumps([{'k' * 1000: number} for number in range(250)]))
    assert pickled.load(pickle.dumps(document)) == document


def test_damage_is_refused_or_gives_plain_data_and_takes_little_memory() -> None:
    chooser = random.Random(1)
    whole = pickle.dumps([{'sku': 42, 'tags': ['a', 'b', 'a'], 'price': 1.5}, None, True], 4)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            damaged = bytearray(whole)
            for _ in range(chooser.randint(1, 4)):
                damaged[chooser.randrange(2, len(damaged))] = chooser.randrange(256)
            try:
                json.dumps(pickled.load(bytes(damaged)))
            except pickled.NotPlainData:
                continue
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


def test_python_agrees_on_whatever_is_read() -> None:
    chooser = random.Random(2)
    opcodes = [bytes([one]) for one in b'(N\x88\x89K]}aesu\x94h.'] + [b'\x8c\x01a', b'h\x00']
    read = 0
    for _ in range(50_000):
        steps = [chooser.choice(opcodes) for _ in range(chooser.randint(1, 6))]
        data = b'\x80\x04' + b''.join(steps) + b'.'
        try:
            found = pickled.load(data)
        except pickled.NotPlainData:
            continue
        read += 1
        assert found == pickle.Unpickler(io.BytesIO(data)).load()
    assert read > 500
