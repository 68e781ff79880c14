"""Names that the stores behind a server cannot keep apart."""

from __future__ import annotations

import itertools
import uuid

import pytest
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent.storage.names import NameRules

KINDS = ('messages', 'claims', 'subscriptions', 'rank_counter', 'messages.delayed')
HARMLESS = [
    'orders',
    'messages',
    'claims',
    'a.b',
    'a.b.c',
    '.messages',
    'messages.a',
    'queues_set.a',
]
RESERVED = ['queues_set', *(f'a.{kind}' for kind in KINDS), 'a.b.claims']


def names_of(*drivers: str) -> NameRules:
    return NameRules(lambda driver: driver in drivers)


def is_refused(names: NameRules, queue: str, project: str) -> bool:
    try:
        names.check_project(project)
        names.check_queue(queue, project)
    except ValidationFailed:
        return True
    return False


@pytest.mark.parametrize('queue', RESERVED)
def test_what_is_reserved_in_redis_is_refused_there(queue: str) -> None:
    assert is_refused(names_of('redis'), queue, 'demo')
    assert not is_refused(names_of('sqlite', 'mongodb', 'swift'), queue, 'demo')


@pytest.mark.parametrize('queue', HARMLESS)
def test_what_only_looks_like_it_is_not_refused(queue: str) -> None:
    assert not is_refused(names_of('redis'), queue, 'demo')


def test_the_place_of_a_claim_is_no_queue() -> None:
    claim_id = str(uuid.uuid4())
    for queue in (claim_id, claim_id.upper()):
        assert is_refused(names_of('redis'), queue, 'messages')
        assert not is_refused(names_of('redis'), queue, 'demo')
    assert not is_refused(names_of('redis'), 'orders', 'messages')


@pytest.mark.parametrize(
    ('driver', 'project'), [('redis', 'a.b'), ('redis', '.'), ('swift', 'a/b')]
)
def test_a_project_whose_id_ends_at_a_character_in_it_is_refused(driver: str, project: str) -> None:
    assert is_refused(names_of(driver), 'orders', project)
    assert not is_refused(names_of('sqlite'), 'orders', project)


def test_in_redis_no_two_things_have_one_key() -> None:
    """Of whatever projects and queues."""
    names = names_of('redis')
    claim_id = str(uuid.uuid4())
    words = ['a', 'b', 'queues_set', claim_id, *KINDS]
    parts = ['.'.join(some) for size in (1, 2, 3) for some in itertools.product(words, repeat=size)]
    owners: dict[str, tuple[str, str]] = {f'messages.{claim_id}': ('claim', claim_id)}
    for project in [*words, 'a.b', 'a.messages']:
        if is_refused(names, 'orders', project):
            continue
        owners[f'{project}.queues_set'] = ('project', project)
    for project, queue in itertools.product([*words, 'a.b', 'a.messages'], parts):
        if is_refused(names, queue, project):
            continue
        for key in (f'{project}.{queue}', *(f'{project}.{queue}.{kind}' for kind in KINDS)):
            assert owners.setdefault(key, (project, queue)) == (project, queue), key
    assert len(owners) > 1000
