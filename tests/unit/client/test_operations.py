"""The client's table of operations is that of the server, and says rightly what may be repeated."""

from __future__ import annotations

from typing import Any

import pytest

from zaqar_gevent.api import REGISTRY
from zaqar_gevent.client.operations import JSON, OPERATIONS, may_repeat

IN_REST = [operation for operation in REGISTRY if operation.route is not None]


def test_every_operation_of_the_server_that_rest_has_is_known() -> None:
    assert {operation.name for operation in IN_REST} == set(OPERATIONS)


@pytest.mark.parametrize('there', IN_REST, ids=lambda operation: operation.name)
def test_it_is_in_the_same_place(there: Any) -> None:
    here = OPERATIONS[there.name]
    assert here.method == there.route.methods[0]
    assert here.path == there.route.path
    assert here.query == {name: there.member(name) for name in there.route.query}
    assert here.payload == there.payload
    assert here.filters == there.filters
    assert here.media_type == (there.media_types or (JSON,))[0]


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('message_list', {}),
        ('message_delete', {}),
        ('message_delete_many', {'message_ids': ['a']}),
        ('message_post', {'post_id': 'a'}),
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
