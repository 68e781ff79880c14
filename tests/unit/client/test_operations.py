"""The clients' tables of operations are current, and say rightly what may be repeated."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from zaqar_gevent import operation_tables
from zaqar_gevent.api import CONNECTION, REGISTRY
from zaqar_gevent.api.operation import Repeat
from zaqar_gevent.client.attempts import may_repeat
from zaqar_gevent.client.operations import OPERATIONS


@pytest.mark.parametrize('path', operation_tables.tables(), ids=lambda path: path.name)
def test_a_table_is_current(path: pathlib.Path) -> None:
    assert path.read_text() == operation_tables.tables()[path], 'run tox -e genoperations'


def test_every_operation_is_in_the_table() -> None:
    declared = {operation.name for operation in (*REGISTRY, *CONNECTION)}
    assert declared < OPERATIONS.keys()
    assert OPERATIONS.keys() - declared == {'hello', 'ping', 'authenticate'}


@pytest.mark.skipif(shutil.which('node') is None, reason='Node is not installed')
def test_both_tables_say_the_same() -> None:
    script = f"import('{operation_tables.JAVASCRIPT.as_uri()}').then(({{ OPERATIONS }}) => "
    script += 'console.log(JSON.stringify(OPERATIONS)))'
    finished = subprocess.run(
        ['node', '--input-type=module', '--eval', script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    in_javascript = json.loads(finished.stdout)
    assert in_javascript.keys() == OPERATIONS.keys()
    for name, operation in OPERATIONS.items():
        there = in_javascript[name]
        assert (there['method'], there['path']) == (operation.method, operation.path)
        assert there.get('query', {}) == operation.query
        assert there.get('payload') == operation.payload
        assert there.get('filters') == operation.filters
        assert (there['repeat'] is None) == (operation.repeat is None)


@pytest.mark.parametrize('method', ['POST', 'PATCH'])
def test_what_http_does_not_repeat_is_repeatable_by_declaration_only(method: str) -> None:
    declared = {
        operation.name.removeprefix('topic_'): operation.repeat
        for operation in REGISTRY
        if method in operation.route.methods and operation.repeat is not None
    }
    by_declaration = {
        'POST': {
            'message_post': Repeat(given='post_id'),
            **dict.fromkeys(('queue_share', 'message_extend_many'), Repeat()),
        },
        'PATCH': {
            'queue_update': Repeat(changes=('add', 'replace')),
            'update': Repeat(changes=('add', 'replace')),
            **dict.fromkeys(
                ('claim_update', 'subscription_update', 'pool_update', 'flavor_update'), Repeat()
            ),
        },
    }
    assert declared == by_declaration[method]


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('message_list', {}),
        ('message_delete', {}),
        ('message_delete_many', {'message_ids': ['a']}),
        ('message_post', {'post_id': 'a'}),
        ('consumer_stop', {'consumer_id': 'a'}),
        ('queue_create', {}),
        ('queue_delete', {}),
        ('queue_update', {'changes': [{'op': 'replace'}, {'op': 'add'}]}),
        ('claim_update', {}),
        ('claim_delete', {}),
        ('topic_get_stats', {}),
    ],
)
def test_what_is_as_good_done_twice_may_be_repeated(action: str, arguments: dict[str, Any]) -> None:
    assert may_repeat(action, arguments)


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('message_post', {}),
        ('topic_message_post', {}),
        ('message_delete_many', {'pop': 1}),
        ('topic_message_delete_many', {'pop': 1}),
        ('claim_create', {}),
        ('queue_purge', {}),
        ('queue_update', {'changes': [{'op': 'add'}, {'op': 'remove'}]}),
        ('subscription_create', {}),
        ('queue_consume', {}),
        ('an_operation_of_the_future', {}),
    ],
)
def test_what_does_more_when_done_twice_may_not(action: str, arguments: dict[str, Any]) -> None:
    assert not may_repeat(action, arguments)
