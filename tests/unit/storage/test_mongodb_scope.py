"""Upstream's driver for MongoDB lists the queues of one project only."""

from __future__ import annotations

import re
from typing import Any

import pytest
from zaqar.storage.mongodb import utils

from zaqar_gevent.storage import mongodb_scope

STORED = ['a/orders', 'a/older', 'a.b/orders', 'axb/orders', 'b/orders', 'a/b/orders', '/orders']


def found(query: dict[str, Any], key: str = 'p_q') -> list[str]:
    """What MongoDB would find: both of its operators are Python's here."""
    condition = query[key]
    return [
        name for name in STORED if re.search(condition['$regex'], name) and name > condition['$gt']
    ]


@pytest.fixture(autouse=True)
def confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, 'scoped_query', utils.scoped_query)
    mongodb_scope.confine_queues()


@pytest.mark.parametrize('project', ['a', 'a.b', 'b', None])
def test_a_project_has_its_own_queues_only(project: str | None) -> None:
    names = {
        'a': ['a/orders', 'a/older'],
        'a.b': ['a.b/orders'],
        'b': ['b/orders'],
        None: ['/orders'],
    }
    assert found(utils.scoped_query(None, project)) == names[project]


@pytest.mark.parametrize('project', ['.*', '.', 'a|b', '^', '[ab]', 'a/b|'])
def test_a_project_is_no_pattern(project: str) -> None:
    assert found(utils.scoped_query(None, project)) == []


@pytest.mark.parametrize('name', ['|', '|.*', '.*|b', 'a|', '$|^', '.'])
def test_a_part_of_a_name_is_no_pattern(name: str) -> None:
    assert found(utils.scoped_query(None, 'a', name=name)) == []


def test_a_part_of_a_name_is_found_in_it() -> None:
    assert found(utils.scoped_query(None, 'a', name='rder')) == ['a/orders']
    assert found(utils.scoped_query(None, 'a', name='')) == ['a/orders', 'a/older']


def test_a_page_begins_after_a_queue_and_metadata_count() -> None:
    query = utils.scoped_query('older', 'a', kfilter={'owner': 'shop'})
    assert found(query) == ['a/orders']
    assert query['m.owner'] == {'$eq': 'shop'}
    assert found(utils.scoped_query(None, 'a', key_value='p_t'), 'p_t') == ['a/orders', 'a/older']
