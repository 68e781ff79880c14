"""Messages that are delivered at a time, over every transport and on every store that can."""

from __future__ import annotations

import datetime
import math
import time
from typing import Any

import pytest

from tests.extensions.conftest import Extended

QUEUE = {'queue_name': 'work'}


def post(api: Any, *messages: dict[str, Any]) -> Any:
    new = [{'body': number, 'ttl': 300, **one} for number, one in enumerate(messages)]
    return api.call('message_post', **QUEUE, messages=new)


def listed(api: Any, **more: Any) -> list[Any]:
    found: list[Any] = api.call('message_list', **QUEUE, echo=True, **more).body['messages']
    return found


def rfc3339(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat()


def test_a_message_is_visible_from_its_time_on(extended: Extended) -> None:
    soon = math.ceil(time.time()) + 3
    assert post(extended, {'deliver_at': soon}, {'deliver_at': rfc3339(soon)}, {}).status == 201
    assert [message['body'] for message in listed(extended)] == [2]
    assert len(listed(extended, include_delayed=True)) == 3
    deadline = time.monotonic() + 60
    while len(found := listed(extended)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert time.time() >= soon
    assert [message['body'] for message in found] == [2, 0, 1]


def test_its_ttl_counts_from_then_on(extended: Extended) -> None:
    week = 7 * 24 * 3600
    assert post(extended, {'deliver_at': time.time() + week, 'ttl': 60}).status == 201
    [message] = listed(extended, include_delayed=True)
    assert (message['ttl'], message['age']) == (60, 0)
    assert listed(extended) == []


def test_a_time_that_has_passed_means_at_once(extended: Extended) -> None:
    assert post(extended, {'deliver_at': 0}, {'deliver_at': '2001-01-01T00:00:00Z'}).status == 201
    assert [message['body'] for message in listed(extended)] == [0, 1]
    assert all(message['age'] <= 5 for message in listed(extended))


@pytest.mark.parametrize(
    ('members', 'told'),
    [
        ({'deliver_at': 'tomorrow'}, 'RFC 3339'),
        ({'deliver_at': '2026-11-26T12:00:00'}, 'RFC 3339'),
        ({'deliver_at': '2100-01-01T00:00:00Z'}, 'at most 1209600 seconds ahead'),
        ({'deliver_at': 1e300}, 'at most 1209600 seconds ahead'),
        ({'deliver_at': []}, 'not a list'),
        ({'deliver_at': 0, 'delay': 1}, 'not both'),
    ],
)
def test_what_is_no_time_of_delivery_is_refused(
    extended: Extended, members: dict[str, Any], told: str
) -> None:
    answer = post(extended, {}, members)
    assert answer.status == 400
    assert told in str(answer.body)
    assert '$.messages[1].deliver_at' in str(answer.body)


def test_a_store_that_cannot_says_so(incapable: Any) -> None:
    caller = incapable()
    answer = post(caller, {'deliver_at': time.time() + 60})
    assert answer.status == 400
    assert 'cannot deliver messages at a time' in str(answer.body)
    caller.close()
