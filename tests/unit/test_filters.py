"""Filters: what they mean, what is refused, and the index that finds those that are met."""

from __future__ import annotations

import itertools
import json
import pathlib
import random
from typing import Any

import pytest

from zaqar_gevent import filters, operation_tables
from zaqar_gevent.api.filter_index import FilterIndex, filter_in
from zaqar_gevent.client import filters as of_client

VECTORS = json.loads(
    (pathlib.Path(__file__).parents[1] / 'client' / 'filter_vectors.json').read_text()
)
MODULES = pytest.mark.parametrize('module', [filters, of_client], ids=['server', 'client'])


@MODULES
@pytest.mark.parametrize('vector', VECTORS['filters'], ids=lambda one: json.dumps(one['filter']))
def test_a_filter_is_met_by_just_these_attributes(module: Any, vector: Any) -> None:
    found = module.parse(vector['filter'])
    assert [one for one in vector['met'] if not found.meets(one)] == []
    assert [one for one in vector['unmet'] if found.meets(one)] == []
    assert found.meets(None) == found.meets({})


@MODULES
@pytest.mark.parametrize('vector', VECTORS['refused'], ids=lambda one: json.dumps(one['filter']))
def test_what_is_no_filter_is_refused_with_its_place(module: Any, vector: Any) -> None:
    with pytest.raises(module.FilterError) as refused:
        module.parse(vector['filter'])
    assert vector['told'] in str(refused.value)
    assert 'at `$.options.filter' in str(refused.value)


@pytest.mark.parametrize(
    ('document', 'told'),
    [
        ({f'a{number}': '' for number in range(17)}, '1 to 16 attributes, not 17'),
        ({'a': ['x'] * 101}, '1 to 100 texts, not 101'),
        ({'a': 'x' * 8193}, 'at most 8192 characters, not 8193'),
        ({'n' * 129: ''}, '1 to 128 letters'),
    ],
)
def test_what_is_too_much_is_refused(document: Any, told: str) -> None:
    with pytest.raises(filters.FilterError, match=told):
        filters.parse(document)


def test_options_without_a_filter_have_none() -> None:
    for options in (None, {}, {'filter': None}, {'filter': 'something of somebody else'}):
        assert filter_in(options) is None
    found = filter_in({'filter': {'type': 'order'}})
    assert found is not None
    assert found.meets({'type': 'order'})


def test_equal_filters_are_equal_however_they_are_written() -> None:
    one = filters.parse({'a': ['x', 'y'], 'b': {'exists': True}})
    other = filters.parse({'b': {'exists': True}, 'a': ['y', 'x', 'y']})
    assert (one, hash(one)) == (other, hash(other))
    assert filters.parse({'a': 'x'}) == filters.parse({'a': ['x']})
    assert filters.parse({'a': {'prefix': ''}}) != filters.parse({'a': {'exists': True}})


def test_the_copy_of_the_clients_is_current() -> None:
    tables = operation_tables.tables()
    path = pathlib.Path(of_client.__file__)
    assert path in tables
    assert path.read_text() == tables[path]


def test_the_index_finds_just_those_that_are_met_whatever_came_and_went() -> None:
    numbers = random.Random(7)
    texts = ('', 'a', 'b', 'ab', 'abc', 'b-1')
    names = ('type', 'region', 'tenant')

    def condition() -> Any:
        return numbers.choice(
            [
                numbers.choice(texts),
                numbers.sample(texts, numbers.randint(1, 3)),
                {'prefix': numbers.choice(texts)},
                {'exists': numbers.random() < 0.5},
            ]
        )

    index: FilterIndex[int] = FilterIndex()
    present: dict[str, tuple[int, filters.Filter]] = {}
    counts = itertools.count()
    for _ in range(2000):
        key = str(numbers.randrange(40))
        if numbers.random() < 0.4:
            index.discard(key)
            present.pop(key, None)
        else:
            chosen = numbers.sample(names, numbers.randint(1, 3))
            wanted = filters.parse({name: condition() for name in chosen})
            present[key] = next(counts), wanted
            index.add(key, present[key][0], wanted)
        assert len(index) == len(present)
        chosen = numbers.sample(names, numbers.randint(0, 3))
        attributes = {name: numbers.choice(texts) for name in chosen}
        groups = list(index.meeting(attributes or None))
        found = [member for group in groups for member in group.members.values()]
        expected = [number for number, one in present.values() if one.meets(attributes)]
        assert sorted(found) == sorted(expected)
    for key in list(present):
        index.discard(key)
    assert not any((index._by_value, index._by_prefix, index._others, index._groups))


def test_a_message_is_not_compared_with_filters_that_it_cannot_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    meets = filters.Filter.meets

    def counted(self: filters.Filter, attributes: Any) -> bool:
        compared.append(self)
        return meets(self, attributes)

    monkeypatch.setattr(filters.Filter, 'meets', counted)
    index: FilterIndex[int] = FilterIndex()
    for number in range(300):
        index.add(f'a{number}', number, filters.parse({'id': str(number), 'x': {'exists': True}}))
        index.add(f'b{number}', number, filters.parse({'id': {'prefix': f'{number}-'}}))
        index.add(f'c{number}', number, filters.parse({'tenant': 'one'}))
    assert list(index.meeting({'id': 'none', 'x': ''})) == []
    assert list(index.meeting(None)) == []
    assert compared == []
    [group] = index.meeting({'id': '7-1'})
    assert list(group.members.values()) == [7]
    [group] = index.meeting({'tenant': 'one'})
    assert len(group.members) == 300
    assert len(compared) == 2
