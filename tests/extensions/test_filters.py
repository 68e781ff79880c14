"""Subscriptions with filters: over every transport, on every store, and between processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import TRANSPORTS, RestCaller, new_identity
from tests.extensions.conftest import CAPABLE, Extended
from tests.faults.client import DIALECTS, Dialect
from tests.functional.test_push import Subscriber
from tests.receivers import Receivers
from tests.server_process import ServerProcess
from zaqar_gevent.client import BadRequest, Client

FILTER = {'type': ['order', 'refund'], 'region': {'prefix': 'eu-'}, 'tenant': {'exists': True}}
MEETING = {'type': 'refund', 'region': 'eu-1', 'tenant': 'a'}
# More than a connection and the system's buffers hold.
FLOODS = 60
FLOOD_BYTES = 200_000
OTHERS: tuple[dict[str, str], ...] = (
    {},
    {'type': 'refund', 'region': 'eu-1'},
    {'type': 'gift', 'region': 'eu-1', 'tenant': 'a'},
)


class TellingServer(ServerProcess):
    """A server that tells at once how far it has read, not every ten seconds."""

    CHANGES = 'from zaqar_gevent.push.feed import Feed; Feed.tell_seconds = 0'


@pytest.fixture(scope='module')
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with TellingServer(tmp_path_factory.mktemp('telling')) as process:
        yield process


@pytest.fixture(params=CAPABLE)
def capable(request: pytest.FixtureRequest) -> ServerProcess:
    """A server on each store that keeps attributes."""
    name = 'server' if request.param == 'embedded' else request.param
    server: ServerProcess = request.getfixturevalue(name)
    return server


def post(api: Any, *attributes: dict[str, str], kind: str = 'queue', start: int = 0) -> list[str]:
    """Post messages with these attributes, whose bodies are numbers; their ids."""
    messages = [
        {'body': number, 'ttl': 300, 'attributes': one}
        for number, one in enumerate(attributes, start)
    ]
    prefix = '' if kind == 'queue' else 'topic_'
    answer = api.call(f'{prefix}message_post', messages=messages, **{f'{kind}_name': 'orders'})
    assert answer.status == 201
    return list(answer.body.get('message_ids') or ())


def messages_of(subscriber: Subscriber, count: int) -> list[Any]:
    """The bodies of the next messages."""
    return [subscriber.body_of(next_of(subscriber)) for _ in range(count)]


def next_of(subscriber: Subscriber) -> Any:
    """The next push that does not only say how far the queue was read."""
    while (push := subscriber.push()).get('push') == 'marker':
        pass
    return push


def subscription(api: Any, uri: str, options: Any, **more: Any) -> Any:
    return api.call(
        'subscription_create', queue_name='orders', subscriber=uri, options=options, **more
    )


# What is accepted, and what is told


@pytest.mark.parametrize(
    ('wanted', 'told'),
    [
        ({}, '1 to 16 attributes, not 0 - at `$.options.filter`'),
        ('type', 'A filter must be an object'),
        ({'type': {'suffix': 'x'}}, 'A condition must be a text'),
        ({'type': ['a', 1]}, 'at `$.options.filter.type[1]`'),
        ({'region': {'prefix': None}}, 'at `$.options.filter.region.prefix`'),
        ({'no name': 'x'}, "unlike 'no name'"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(api: Any, wanted: Any, told: str) -> None:
    answer = subscription(api, 'http://127.0.0.1:9/', {'filter': wanted})
    assert answer.status == 400
    assert told in str(answer.body.get('description') or answer.body['error'])


def test_a_filter_is_kept_changed_and_taken_away(extended: Extended) -> None:
    created = subscription(extended, 'http://127.0.0.1:9/', {'filter': FILTER})
    assert created.status == 201
    target = {'queue_name': 'orders', 'subscription_id': created.body['subscription_id']}
    assert extended.call('subscription_get', **target).body['options'] == {'filter': FILTER}
    other = {'filter': {'type': 'gift'}}
    assert extended.call('subscription_update', **target, options=other).status == 204
    assert extended.call('subscription_get', **target).body['options'] == other
    refused = extended.call('subscription_update', **target, options={'filter': {'type': 7}})
    assert refused.status == 400
    assert extended.call('subscription_update', **target, options={}).status == 204
    assert extended.call('subscription_get', **target).body['options'] == {}


def test_a_store_without_attributes_says_so(incapable: Any) -> None:
    for _ in TRANSPORTS:
        caller = incapable()
        answer = subscription(caller, 'http://127.0.0.1:9/', {'filter': FILTER})
        assert answer.status == 400
        assert 'cannot keep attributes of messages' in str(answer.body)
        assert '$.options.filter' in str(answer.body)
        made = subscription(caller, 'http://127.0.0.1:9/', {})
        assert made.status == 201
        target = {'queue_name': 'orders', 'subscription_id': made.body['subscription_id']}
        changed = caller.call('subscription_update', **target, options={'filter': FILTER})
        assert changed.status == 400
        caller.close()


# Webhooks


def test_a_webhook_is_told_of_what_meets_its_filter(capable: ServerProcess) -> None:
    api = RestCaller(capable.url)
    with Receivers() as receivers:
        project = api.identity.project_id
        paths = [f'prompt/{name}/{project}' for name in ('filtered', 'changed', 'all')]
        first, second, third = map(receivers.url, paths)
        assert subscription(api, first, {'filter': FILTER}).status == 201
        changed = subscription(api, second, {'filter': {'type': 'none'}})
        assert subscription(api, third, {}).status == 201
        target = {'queue_name': 'orders', 'subscription_id': changed.body['subscription_id']}
        own = {'filter': {'type': {'exists': False}}}
        assert api.call('subscription_update', **target, options=own).status == 204
        post(api, *OTHERS, MEETING, {}, MEETING)
        delivered = [receivers.wait_for(count, path) for count, path in zip((2, 2, 6), paths)]  # noqa: B905
    bodies = [[one.document['body'] for one in found] for found in delivered]
    assert bodies == [[3, 5], [0, 4], [0, 1, 2, 3, 4, 5]]


def test_a_delayed_message_is_told_of_by_its_attributes(capable: ServerProcess) -> None:
    api = RestCaller(capable.url)
    with Receivers() as receivers:
        path = f'prompt/{api.identity.project_id}'
        wanted = {'filter': {'type': 'order'}}
        assert subscription(api, receivers.url(path), wanted).status == 201
        messages = [
            {'body': kind, 'ttl': 300, 'delay': 1, 'attributes': {'type': kind}}
            for kind in ('gift', 'order')
        ]
        posted = api.call('message_post', queue_name='orders', messages=messages)
        assert posted.status == 201
        [received] = receivers.wait_for(1, path)
    assert received.document['body'] == 'order'


# Connections


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
@pytest.mark.parametrize('kind', ['queue', 'topic'])
def test_a_connection_is_pushed_what_meets_its_filter(
    capable: ServerProcess, dialect: Dialect, kind: str
) -> None:
    identity = new_identity()
    poster = RestCaller(capable.url, identity=identity)
    prefix = '' if kind == 'queue' else 'topic_'
    with Subscriber(capable.port, dialect, identity=identity) as subscriber:
        post(poster, MEETING, *OTHERS, kind=kind)
        status, body = subscriber.call(
            f'{prefix}subscription_create',
            **{f'{kind}_name': 'orders'},
            marker='',
            options={'filter': FILTER},
        )
        assert status == 201, body
        post(poster, *OTHERS, MEETING, MEETING, kind=kind, start=10)
        assert messages_of(subscriber, 3) == [0, 13, 14]
        wrong = subscriber.call(
            f'{prefix}subscription_create',
            **{f'{kind}_name': 'others'},
            options={'filter': {'type': None}},
        )
        assert wrong.status == 400
        assert '$.options.filter.type' in str(wrong.body)


def test_filtered_and_other_subscriptions_of_one_queue_do_not_disturb_each_other(
    server: ServerProcess,
) -> None:
    identity = new_identity()
    poster = RestCaller(server.url, identity=identity)
    wanted = ({'n': ['1', '3']}, {'n': {'prefix': '1'}}, {'n': ['1', '3']}, None, {'n': 'none'})
    subscribers = [Subscriber(server.port, identity=identity) for _ in wanted]
    for subscriber, one in zip(subscribers, wanted, strict=True):
        options = {} if one is None else {'options': {'filter': one}}
        subscriber.subscribe(**options)
    for start in (0, 10):
        post(poster, *({'n': str(number)} for number in range(start, start + 10)), start=start)
    expected = [[1, 3], [1, *range(10, 20)], [1, 3], list(range(20)), []]
    for subscriber, numbers in zip(subscribers, expected, strict=True):
        assert messages_of(subscriber, len(numbers)) == numbers
    # The one without a filter had everything, so the feed has handed out all.
    subscribers[-1].ask('ping_node')
    assert [push for push in subscribers[-1].pushed if push['push'] != 'marker'] == []
    for subscriber in subscribers:
        subscriber.close()


def test_a_filter_of_a_connection_cannot_be_changed_by_others(server: ServerProcess) -> None:
    identity = new_identity()
    rest = RestCaller(server.url, identity=identity)
    with Subscriber(server.port, identity=identity) as subscriber:
        subscription_id = subscriber.subscribe(options={'filter': {'type': 'order'}})
        target = {'queue_name': 'orders', 'subscription_id': subscription_id}
        for options in ({'filter': {'type': 'gift'}}, {}):
            refused = rest.call('subscription_update', **target, options=options)
            assert refused.status == 400
            assert 'subscribe again' in refused.body['description']
        same = {'filter': {'type': 'order'}, 'other': 1}
        assert rest.call('subscription_update', **target, options=same).status == 204


def test_the_client_is_told_how_far_the_queue_was_read(telling: ServerProcess) -> None:
    identity = new_identity()
    poster = RestCaller(telling.url, identity=identity)
    options = {'filter': {'type': 'order'}}
    with Subscriber(telling.port, identity=identity) as subscriber:
        # What is missed, and what is posted later.
        last = post(poster, *[{'type': 'gift'}] * 50)[-1]
        subscriber.subscribe(marker='', options=options)
        marker = ''
        while not marker.startswith(last):
            push = subscriber.push()
            assert push['push'] == 'marker'
            assert push['queue_name'] == 'orders'
            assert push['subscription_id'] == subscriber.subscription_id
            marker = push['marker']
        last = post(poster, *[{'type': 'gift'}] * 50)[-1]
        while not marker.startswith(last):
            push = subscriber.push()
            assert push['push'] == 'marker'
            marker = push['marker']
        [wanted] = post(poster, {'type': 'order'})
        assert next_of(subscriber)['message']['id'] == wanted
    with Subscriber(telling.port, identity=identity) as again:
        again.subscribe(marker=marker, options=options)
        assert next_of(again)['message']['id'] == wanted


def test_one_that_is_paused_goes_on_where_it_was_with_what_meets_its_filter(
    server: ServerProcess,
) -> None:
    identity = new_identity()
    poster = RestCaller(server.url, identity=identity)
    fill = 'x' * FLOOD_BYTES
    expected: list[str] = []
    with Subscriber(server.port, identity=identity, receive_buffer=4096) as subscriber:
        subscriber.subscribe(options={'filter': {'type': 'order'}})
        for _ in range(FLOODS):
            messages = [
                {'body': kind if kind == 'gift' else fill, 'ttl': 300, 'attributes': {'type': kind}}
                for kind in ('order', 'gift')
            ]
            posted = poster.call('message_post', queue_name='orders', messages=messages)
            expected.append(posted.body['message_ids'][0])
        seen: list[str] = []
        while (push := next_of(subscriber))['push'] != 'paused':
            seen.append(push['message']['id'])
        assert 0 < len(seen) < FLOODS
        target = {'subscription_id': subscriber.subscription_id}
        assert subscriber.call('subscription_resume', **target).status == 204
        while len(seen) < FLOODS:
            push = next_of(subscriber)
            assert push['push'] == 'message'
            seen.append(push['message']['id'])
        assert seen == expected
        [last] = post(poster, {'type': 'order'})
        assert next_of(subscriber)['message']['id'] == last


# Between processes, and by the clients


def test_a_message_of_another_process_is_pushed_if_it_meets_the_filter(
    telling: ServerProcess,
) -> None:
    identity = new_identity()
    with (
        ServerProcess(telling.state_path) as other,
        Subscriber(telling.port, identity=identity) as subscriber,
    ):
        subscriber.subscribe(marker='', options={'filter': {'type': 'order'}})
        poster = RestCaller(other.url, identity=identity)
        post(poster, {'type': 'gift'}, {'type': 'order'}, {})
        assert messages_of(subscriber, 1) == [1]
        post(poster, {'type': 'order'}, start=10)
        assert messages_of(subscriber, 1) == [10]


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_client_gets_the_same_pushed_and_polled(capable: ServerProcess, transport: str) -> None:
    project = new_identity().project_id
    with Client(capable.url, project=project, transport=transport) as client:  # type: ignore[arg-type]
        queue = client.queue('orders')
        queue.post([0, 1], attributes={'type': 'gift'})
        queue.post(2, attributes=MEETING)
        queue.post([3] * 30, attributes={'type': 'gift'})
        queue.post(4, attributes=MEETING)
        last = queue.post(5, attributes={'type': 'gift'})[0]
        with queue.subscribe(marker='', filter=FILTER) as subscription:
            assert [subscription.receive(timeout=30).body for _ in range(2)] == [2, 4]  # type: ignore[union-attr]
            marker = subscription.marker
            if transport == 'rest':
                # Another look moves the marker past what does not meet the filter.
                deadline = time.monotonic() + 60
                while not str(subscription.marker).startswith(last):
                    assert time.monotonic() < deadline
                    assert subscription.receive(timeout=0.1) is None
        queue.post(6, attributes=MEETING)
        with queue.subscribe(marker=marker, filter=FILTER) as subscription:
            assert subscription.receive(timeout=30).body == 6  # type: ignore[union-attr]


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_client_refuses_what_is_no_filter(server: ServerProcess, transport: str) -> None:
    project = new_identity().project_id
    with Client(server.url, project=project, transport=transport) as client:  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r'1 to 16 attributes.*filter'):
            client.queue('orders').subscribe(filter={})
        with pytest.raises(BadRequest, match=r'\$\.options\.filter\.type'):
            client.queue('orders').notify('http://127.0.0.1:9', options={'filter': {'type': 7}})
