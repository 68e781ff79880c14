"""Dead letter queues that lead back to where a message came from, over every transport alike."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.callers import RestCaller

PLACE = '$.metadata._dead_letter_queue'


def create(api: Any, name: str, dead_letter_queue: Any, kind: str = 'queue') -> Any:
    metadata = {'_dead_letter_queue': dead_letter_queue, '_max_claim_count': 1}
    return api.call(f'{kind}_create', **{f'{kind}_name': name}, metadata=metadata)


def patch(api: Any, name: str, dead_letter_queue: Any, kind: str = 'queue') -> Any:
    change = {'op': 'add', 'path': '/metadata/_dead_letter_queue', 'value': dead_letter_queue}
    return api.call(f'{kind}_update', **{f'{kind}_name': name}, changes=[change])


def assert_refused(answer: Any, told: str) -> None:
    assert answer.status == 400
    assert told in str(answer.body)
    assert PLACE in str(answer.body)


@pytest.mark.parametrize('kind', ['queue', 'topic'])
def test_it_cannot_be_its_own(api: Any, kind: str) -> None:
    assert_refused(create(api, 'orders', 'orders', kind), 'orders -> orders')
    assert create(api, 'orders', 'dead', kind).status == 201
    assert_refused(patch(api, 'orders', 'orders', kind), 'orders -> orders')
    assert (
        api.call(f'{kind}_get', **{f'{kind}_name': 'orders'}).body['_dead_letter_queue'] == 'dead'
    )


def test_a_cycle_is_refused_by_whichever_queue_closes_it(api: Any) -> None:
    assert create(api, 'a', 'b').status == 201
    assert create(api, 'b', 'c').status == 201
    assert_refused(create(api, 'c', 'a'), 'c -> a -> b -> c')
    assert api.call('queue_create', queue_name='c').status == 201
    assert_refused(patch(api, 'c', 'a'), 'c -> a -> b -> c')
    assert_refused(patch(api, 'c', 'b'), 'c -> b -> c')
    assert patch(api, 'c', 'd').status == 200


def test_a_cycle_is_refused_where_it_begins(api: Any) -> None:
    assert create(api, 'b', 'a').status == 201
    assert_refused(create(api, 'a', 'b'), 'a -> b -> a')
    assert patch(api, 'b', None).status == 200
    assert create(api, 'a', 'b').status == 201


def test_a_chain_is_no_cycle_but_has_an_end(api: Any) -> None:
    for number in range(32):
        assert create(api, f'q{number}', f'q{number - 1}' if number else 'last').status == 201
    assert_refused(create(api, 'q32', 'q31'), 'At most 32 dead letter queues')
    assert_refused(create(api, 'last', 'q31'), 'last -> q31')


@pytest.mark.parametrize('name', ['no name', 'x' * 65, 'a/b', 'caf\u00e9'])
def test_a_name_that_no_queue_can_have_is_refused(api: Any, name: str) -> None:
    assert_refused(create(api, 'orders', name), 'Queue names may')


def test_other_metadata_can_be_changed_and_none_is_no_queue(api: Any) -> None:
    assert create(api, 'orders', None).status == 201
    assert create(api, 'others', '').status == 201
    change = {'op': 'add', 'path': '/metadata/owner', 'value': 'shop'}
    assert api.call('queue_update', queue_name='orders', changes=[change]).status == 200


def test_no_cycle_is_left_where_two_queues_are_changed_at_once(server: Any) -> None:
    """Each becomes the dead letter queue of the other, whichever request is first."""
    rest = RestCaller(server.url)
    others = [RestCaller(server.url, identity=rest.identity) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for number in range(10):
            names = [f'{side}{number}' for side in 'ab']
            for name in names:
                assert rest.call('queue_create', queue_name=name).status == 201
            answers = list(threads.map(patch, others, names, reversed(names)))
            assert {answer.status for answer in answers} <= {200, 400}
            targets = [
                rest.call('queue_get', queue_name=name).body['_dead_letter_queue'] for name in names
            ]
            assert None in targets
            for name, answer, target in zip(names, answers, targets, strict=True):
                assert (answer.status == 200) == (target is not None), name
