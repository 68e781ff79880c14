"""What a client is told of each error of the store."""

from __future__ import annotations

import inspect

import pytest
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import errors

TOLD: list[tuple[storage_errors.ExceptionBase, int]] = [
    (storage_errors.ConnectionError(), 503),
    (storage_errors.MessageConflict('q', 'p'), 503),
    (storage_errors.ClaimConflict('q', 'p'), 503),
    (storage_errors.NoPoolFound(), 503),
    (storage_errors.QueueDoesNotExist('q', 'p'), 404),
    (storage_errors.TopicDoesNotExist('t', 'p'), 404),
    (storage_errors.MessageDoesNotExist('m', 'q', 'p'), 404),
    (storage_errors.ClaimDoesNotExist('c', 'q', 'p'), 404),
    (storage_errors.SubscriptionDoesNotExist('s'), 404),
    (storage_errors.QueueNotMapped('q', 'p'), 404),
    (storage_errors.PoolDoesNotExist('p'), 404),
    (storage_errors.FlavorDoesNotExist('f'), 404),
    (storage_errors.ClaimDoesNotMatch('c', 'q', 'p'), 400),
    (storage_errors.MessageNotClaimed('m'), 400),
    (storage_errors.MessageIsClaimed('m'), 403),
    (storage_errors.MessageNotClaimedBy('m', 'c'), 403),
]


@pytest.mark.parametrize(('error', 'status'), TOLD, ids=lambda value: type(value).__name__)
def test_an_error_of_the_store_has_its_status(
    error: storage_errors.ExceptionBase, status: int
) -> None:
    told = errors.from_storage(error, 'message_post')
    assert told.status == status
    assert told.description
    assert set(told.to_document()) == {'code', 'title', 'description'}


def test_every_error_has_a_code_of_its_own_and_is_in_the_tree() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.APIError)
    ]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
    for kind in kinds:
        assert f'{kind.__name__} ' in str(errors.__doc__)
