"""Webhooks: what they are sent, when it is sent again, and what subscriptions say of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import pathlib
import sqlite3
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgpack
import psutil
import pytest
import requests

from tests.callers import TRANSPORTS, RestCaller, connect
from tests.certificate import write_certificate
from tests.client.waiting import wait_until
from tests.exposition import read, value_in
from tests.functional.test_authentication import IdentityService, configuration
from tests.functional.test_gunicorn import gunicorn
from tests.receivers import Receivers
from tests.redis_process import ON_REDIS, RedisProcess
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch

SECRET = 'whsec_' + base64.b64encode(b'an old key of 24 bytes..').decode()
NEW_SECRET = 'whsec_' + base64.b64encode(b'a new key of 24 bytes...').decode()
AT_ONCE = {
    'retries_with_no_delay': 5,
    'minimum_delay_retries': 0,
    'minimum_delay': 0,
    'maximum_delay': 10,
    'maximum_delay_retries': 0,
}
EXTENDED = {'OpenStack-API-Version': 'messaging 2.1'}


@pytest.fixture(scope='module')
def receivers() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers


@pytest.fixture
def path(api: Any) -> str:
    """A part of a path that no other test uses."""
    project: str = api.identity.project_id
    return project


@pytest.fixture
def path_of_rest() -> str:
    """The same where there is one transport."""
    return uuid.uuid4().hex


def subscribe(
    caller: Any, subscriber: str, queue_name: str = 'q', **options: Any
) -> dict[str, str]:
    """Subscribe a webhook and return what names the subscription."""
    answer = caller.call(
        'subscription_create', queue_name=queue_name, subscriber=subscriber, options=options
    )
    assert answer.status == 201, answer
    return {'queue_name': queue_name, 'subscription_id': answer.body['subscription_id']}


def post(caller: Any, *bodies: Any, queue_name: str = 'q', **more: Any) -> None:
    messages = [{'body': body, 'ttl': 300} for body in bodies]
    answer = caller.call('message_post', queue_name=queue_name, messages=messages, **more)
    assert answer.status == 201, answer


def state_of(caller: Any, target: dict[str, str]) -> dict[str, Any]:
    headers = {**caller.identity.headers(), **EXTENDED}
    answer = caller.call('subscription_get', headers=headers, **target)
    assert answer.status == 200
    state: dict[str, Any] = answer.body['delivery']
    return state


def failed(caller: Any, target: dict[str, str]) -> str:
    """Why a delivery has failed, once it has."""
    deadline = time.monotonic() + 60
    while True:
        answer = caller.call(
            'subscription_get', headers={**caller.identity.headers(), **EXTENDED}, **target
        )
        failure = answer.body.get('delivery', {}).get('last_failure')
        if failure:
            reason: str = failure['reason']
            return reason
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_silent(receivers: Receivers, path: str, known_after: float = 0.2) -> None:
    """Nothing is sent there any more, once it is known that there is no subscriber."""
    time.sleep(known_after)
    before = len(receivers.look()[path])
    time.sleep(1.5)
    assert len(receivers.look()[path]) == before


def bodies(receivers: Receivers, count: int, path: str) -> list[Any]:
    return [each.document['body'] for each in receivers.wait_for(count, path)]


# What is sent


def test_a_notification_is_what_upstream_sends(api: Any, receivers: Receivers, path: str) -> None:
    subscribe(api, receivers.url(f'prompt/{path}?a=b%20c#fragment'))
    post(api, {'sku': 42})
    [received] = receivers.wait_for(1, f'prompt/{path}?a=b%20c')
    assert received.document == {
        'body': {'sku': 42},
        'ttl': 300,
        'queue_name': 'q',
        'Message_Type': 'Notification',
    }
    assert received.headers['Content-Type'] == 'application/json'
    assert received.headers['Host'] == f'127.0.0.1:{receivers.port}'
    assert not [name for name in received.headers if name.lower().startswith('webhook-')]


def test_what_a_post_is_told_apart_by_is_not_sent(
    api: Any, receivers: Receivers, path: str
) -> None:
    subscribe(api, receivers.url(f'prompt/{path}'))
    post(api, 'x', post_id='id')
    [received] = receivers.wait_for(1, f'prompt/{path}')
    assert set(received.document) == {'body', 'ttl', 'queue_name', 'Message_Type'}


def test_subscriptions_with_large_options_are_all_told(
    server: ServerProcess, receivers: Receivers, path_of_rest: str
) -> None:
    """More of them than are read at a time, and one larger than may be made today."""
    caller = RestCaller(server.url)
    urls = [receivers.url(f'prompt/{path_of_rest}?{number}') for number in range(120)]
    targets = [subscribe(caller, url, x='y' * 16_000) for url in urls]
    store = server.output[0].partition('store sqlite:///')[2]
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as program:
        changed = program.execute(
            'UPDATE subscriptions SET options = ? WHERE subscriber = ?',
            (json.dumps({'x': 'y' * 200_000}), urls[0]),
        )
        assert changed.rowcount == 1
    caller.call('subscription_delete', **targets.pop())
    urls.pop()
    for body in ('first', 'second'):
        post(caller, body)
    for number in range(len(urls)):
        assert bodies(receivers, 2, f'prompt/{path_of_rest}?{number}') == ['first', 'second']
    caller.close()


def test_headers_are_the_subscriptions_own(api: Any, receivers: Receivers, path: str) -> None:
    headers = {'X-Secret': 'caf\xe9', 'content-type': 'text/plain', 'Host': 'elsewhere.example'}
    subscribe(api, receivers.url(f'prompt/{path}'), post_headers=headers)
    post(api, 'x')
    [received] = receivers.wait_for(1, f'prompt/{path}')
    for name, value in headers.items():
        assert received.headers[name] == value
    assert 'Content-Type' not in received.headers


def test_user_and_password_of_a_url_authenticate(api: Any, receivers: Receivers, path: str) -> None:
    url = receivers.url(f'prompt/{path}').replace('://', '://us%40er:pass@')
    subscribe(api, url)
    post(api, 'x')
    [received] = receivers.wait_for(1, f'prompt/{path}')
    plain = base64.b64encode(b'us@er:pass').decode()
    assert received.headers['Authorization'] == f'Basic {plain}'


@pytest.mark.parametrize(
    ('template', 'wanted'),
    [
        ('{"event": "$zaqar_message$"}', '{"event": MESSAGE}'),
        ('"$zaqar_message$"', 'MESSAGE'),
        ('["$zaqar_message$", "$zaqar_message$"]', '[MESSAGE, MESSAGE]'),
        ('text="$zaqar_message$"&more', 'text=MESSAGE&more'),
        ('$zaqar_message$ without quotes, \xfc', '$zaqar_message$ without quotes, \xfc'),
        ('', ''),
    ],
)
def test_the_message_stands_where_post_data_wants_it(
    server: ServerProcess, receivers: Receivers, template: str, wanted: str
) -> None:
    caller = RestCaller(server.url)
    path = f'prompt/{caller.identity.project_id}'
    subscribe(caller, receivers.url(f'{path}/plain'))
    subscribe(caller, receivers.url(path), post_data=template)
    post(caller, {'a': '\xfc"'})
    [plain] = receivers.wait_for(1, f'{path}/plain')
    [received] = receivers.wait_for(1, path)
    assert received.body == wanted.replace('MESSAGE', plain.body)


def test_connections_are_kept(server: ServerProcess, receivers: Receivers) -> None:
    caller = RestCaller(server.url)
    path = f'prompt/{caller.identity.project_id}'
    subscribe(caller, receivers.url(path))
    for number in range(10):
        post(caller, number)
        receivers.wait_for(number + 1, path)
    assert len({each.connection for each in receivers.received[path]}) == 1


def test_a_kept_connection_that_was_closed_costs_nothing(server: ServerProcess) -> None:
    caller = RestCaller(server.url)
    with Receivers() as first:
        target = subscribe(caller, first.url('prompt/1'))
        post(caller, 1)
        first.wait_for(1, 'prompt/1')
    with Receivers() as second:
        answer = caller.call('subscription_update', **target, subscriber=second.url('hangup/first'))
        assert answer.status == 204
        caller.call('subscription_update', **target, subscriber=second.url('prompt/2'))
        post(caller, 2)
        assert bodies(second, 1, 'prompt/2') == [2]


# When it is sent again


def test_a_message_is_sent_again_until_it_is_taken_and_the_next_waits(
    api: Any, receivers: Receivers, path: str
) -> None:
    subscribe(api, receivers.url(f'status/503/2/{path}'), _retry_policy=AT_ONCE)
    post(api, 1, 2, 3)
    assert bodies(receivers, 5, f'status/503/2/{path}') == [1, 1, 1, 2, 3]


def test_a_connection_that_is_closed_without_an_answer_is_a_failure(
    api: Any, receivers: Receivers, path: str
) -> None:
    target = subscribe(api, receivers.url(f'hangup/{path}'), _retry_policy=AT_ONCE)
    post(api, 1)
    receivers.wait_for(3, f'hangup/{path}')
    assert failed(api, target) == 'the connection was closed without an answer'


@pytest.mark.parametrize('status', [400, 404, 410, 301, 303])
def test_a_refusal_is_final_and_the_next_message_is_sent(
    server: ServerProcess, receivers: Receivers, status: int
) -> None:
    caller = RestCaller(server.url)
    path = f'status/{status}//{caller.identity.project_id}'
    target = subscribe(caller, receivers.url(path), _retry_policy=AT_ONCE)
    post(caller, 1, 2, 3)
    receivers.wait_for(3, path)
    state = state_of(caller, target)
    assert f'it answered {status}' in state['last_failure']['reason']
    time.sleep(0.2)
    assert [each.document['body'] for each in receivers.look()[path]] == [1, 2, 3]
    assert state_of(caller, target)['dropped'] == 3


def test_the_queues_policy_counts_where_the_subscription_has_none(
    api: Any, receivers: Receivers, path: str
) -> None:
    api.call('queue_create', queue_name='q', metadata={'_retry_policy': AT_ONCE})
    subscribe(api, receivers.url(f'status/500/3/{path}'))
    post(api, 1)
    assert bodies(receivers, 4, f'status/500/3/{path}') == [1] * 4


def test_the_queues_policy_can_count_for_all(api: Any, receivers: Receivers, path: str) -> None:
    metadata = {'_retry_policy': {**AT_ONCE, 'ignore_subscription_override': True}}
    api.call('queue_create', queue_name='q', metadata=metadata)
    never = {**AT_ONCE, 'retries_with_no_delay': 0, 'minimum_delay': 3000, 'maximum_delay': 3600}
    subscribe(api, receivers.url(f'status/500/3/{path}'), _retry_policy=never)
    post(api, 1)
    assert bodies(receivers, 4, f'status/500/3/{path}') == [1] * 4


def test_a_changed_subscriber_is_told_at_once_what_the_other_was_not(
    api: Any, receivers: Receivers, path: str
) -> None:
    slowly = {**AT_ONCE, 'retries_with_no_delay': 0, 'minimum_delay': 3000, 'maximum_delay': 3600}
    target = subscribe(api, receivers.url(f'status/500//{path}'), _retry_policy=slowly)
    post(api, 1, 2)
    failed(api, target)
    state = state_of(api, target)
    assert state['waiting'] == 2
    assert state['next_try'] is not None
    api.call('subscription_update', **target, subscriber=receivers.url(f'prompt/{path}'))
    assert bodies(receivers, 2, f'prompt/{path}') == [1, 2]


def test_a_deleted_subscription_is_told_no_more(
    server: ServerProcess, receivers: Receivers
) -> None:
    caller = RestCaller(server.url)
    path = f'status/500//{caller.identity.project_id}'
    target = subscribe(caller, receivers.url(path))
    post(caller, 1)
    failed(caller, target)
    assert caller.call('subscription_delete', **target).status == 204
    assert_silent(receivers, path)


def test_what_is_on_its_way_is_sent_before_the_server_stops(
    tmp_path: pathlib.Path, receivers: Receivers
) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        path = f'slow/{caller.identity.project_id}'
        subscribe(caller, receivers.url(path))
        post(caller, 1)
        receivers.wait_for(1, path)
        caller.close()
        watch = Stopwatch(server.pid)
        assert server.stop() == 0
        assert len(receivers.look()[path]) == 1
        assert watch.seconds() < 10
        assert 'are not sent any more' not in '\n'.join(server.output)


# What subscriptions say


def test_a_subscription_says_how_its_delivery_goes(
    api: Any, receivers: Receivers, path: str
) -> None:
    target = subscribe(api, receivers.url(f'status/503/1/{path}'), _retry_policy=AT_ONCE)
    assert 'delivery' not in api.call('subscription_get', **target).body
    post(api, 1)
    receivers.wait_for(2, f'status/503/1/{path}')
    deadline = time.monotonic() + 5
    while (state := state_of(api, target))['last_success'] is None:
        assert time.monotonic() < deadline
    assert state['last_failure']['reason'] == 'it answered 503'
    assert state['last_failure']['at'] <= state['last_success']
    assert (state['next_try'], state['waiting'], state['dropped']) == (None, 0, 0)


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_only_who_asks_is_shown_what_upstream_does_not_have(
    server: ServerProcess, receivers: Receivers, transport: str
) -> None:
    caller = connect(transport, server.url, server.websocket_url)
    target = subscribe(caller, receivers.url(f'status/404//{caller.identity.project_id}'))
    post(caller, 1)
    failed(caller, target)
    plain = caller.call('subscription_get', **target).body
    assert ('delivery' in plain) == transport.startswith('v2')
    caller.close()


# Signatures


def verify(received: Any, secret: str) -> bool:
    """As a subscriber would, by the convention."""
    headers = received.headers
    signed = f'{headers["webhook-id"]}.{headers["webhook-timestamp"]}.{received.body}'
    key = base64.b64decode(secret.removeprefix('whsec_'))
    digest = base64.b64encode(hmac.digest(key, signed.encode(), hashlib.sha256)).decode()
    return f'v1,{digest}' in headers['webhook-signature'].split(' ')


def test_a_webhook_with_a_secret_is_signed(api: Any, receivers: Receivers, path: str) -> None:
    template = '{"a": "$zaqar_message$", "b": "$zaqar_message$"}'
    url = receivers.url(f'status/503/1/{path}')
    subscribe(api, url, webhook_secret=SECRET, post_data=template, _retry_policy=AT_ONCE)
    post(api, 1, 2)
    first, again, second = receivers.wait_for(3, f'status/503/1/{path}')
    for received in (first, again, second):
        assert verify(received, SECRET)
        assert abs(int(received.headers['webhook-timestamp']) - time.time()) < 30
    idents = [each.headers['webhook-id'] for each in (first, again, second)]
    assert idents[0] == idents[1] != idents[2]


def test_a_client_cannot_set_the_headers_of_a_signature(
    api: Any, receivers: Receivers, path: str
) -> None:
    forged = {'Webhook-Id': 'mine', 'WEBHOOK-SIGNATURE': 'v1,x'}
    url = receivers.url(f'prompt/{path}')
    subscribe(api, url, webhook_secret=SECRET, post_headers=forged)
    post(api, 1)
    [received] = receivers.wait_for(1, f'prompt/{path}')
    assert verify(received, SECRET)
    assert not {'Webhook-Id', 'WEBHOOK-SIGNATURE'} & set(received.headers)


def test_a_secret_is_changed_without_a_gap_and_never_shown(
    api: Any, receivers: Receivers, path: str
) -> None:
    target = subscribe(api, receivers.url(f'prompt/{path}'), webhook_secret=SECRET, other=1)
    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [SECRET]),
        ({'webhook_secret': True, 'more': 2}, [SECRET]),
        ({'webhook_secret': [NEW_SECRET, SECRET]}, [NEW_SECRET, SECRET]),
        ({'webhook_secret': NEW_SECRET}, [NEW_SECRET]),
    ]
    for number, (options, secrets) in enumerate(steps, 1):
        if options:
            assert api.call('subscription_update', **target, options=options).status == 204
        post(api, number)
        *_, received = receivers.wait_for(number, f'prompt/{path}')
        assert len(received.headers['webhook-signature'].split(' ')) == len(secrets)
        assert all(verify(received, secret) for secret in secrets)
        shown = api.call('subscription_get', **target).body['options']
        assert shown == {**(options or {'other': 1}), 'webhook_secret': True}
        [listed] = api.call('subscription_list', queue_name='q').body['subscriptions']
        assert listed['options'] == shown
    assert api.call('subscription_update', **target, ttl=300).status == 204
    assert api.call('subscription_get', **target).body['options'] == {'webhook_secret': True}
    assert api.call('subscription_update', **target, options={'webhook_secret': None}).status == 204
    assert api.call('subscription_get', **target).body['options'] == {}
    post(api, 'unsigned')
    *_, received = receivers.wait_for(len(steps) + 1, f'prompt/{path}')
    assert 'webhook-signature' not in received.headers


@pytest.mark.parametrize('binary', [False, True])
def test_the_default_envelope_does_not_echo_a_secret(server: ServerProcess, binary: bool) -> None:
    caller = connect('ws-msgpack' if binary else 'ws-json', server.url, server.websocket_url)
    request = {
        'action': 'subscription_create',
        'headers': caller.identity.headers(),
        'body': {
            'queue_name': 'q',
            'subscriber': 'http://subscriber.example',
            'options': {'webhook_secret': SECRET, 'a': 1},
        },
    }
    payload = msgpack.packb(request) if binary else json.dumps(request).encode()
    answer = caller.exchange(payload)
    assert answer['headers']['status'] == 201
    assert answer['request']['body']['options'] == {'webhook_secret': True, 'a': 1}
    caller.close()


@pytest.mark.parametrize('secret', ['whsec_short', 'no prefix', 1, [], [SECRET] * 3, {}, True, ''])
def test_what_is_no_secret_is_refused(api: Any, secret: Any) -> None:
    options = {'webhook_secret': secret}
    arguments = {'queue_name': 'q', 'subscriber': 'http://subscriber.example'}
    answer = api.call('subscription_create', **arguments, options=options)
    assert answer.status == 400
    assert '$.options.webhook_secret' in str(answer.body)
    target = subscribe(api, 'http://subscriber.example')
    answer = api.call('subscription_update', **target, options=options)
    assert answer.status == 400
    assert '$.options.webhook_secret' in str(answer.body)


# Certificates


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_certificate(tmp_path_factory.mktemp('certificate'))


@pytest.mark.parametrize('by_environment', [False, True])
def test_a_webhook_over_https_is_told_if_its_certificate_is_believed(
    tmp_path: pathlib.Path, certificate: pathlib.Path, by_environment: bool
) -> None:
    config = f'[drivers:transport:gevent]\nwebhook_ca_file = {certificate}\n'
    more: dict[str, Any] = {'config': notifying(tmp_path, config)}
    if by_environment:
        more = {'env': {'REQUESTS_CA_BUNDLE': str(certificate)}}
    with Receivers(certificate) as receivers, ServerProcess(tmp_path, **more) as server:
        caller = RestCaller(server.url)
        subscribe(caller, receivers.url('prompt/1'))
        post(caller, 1, 2)
        assert bodies(receivers, 2, 'prompt/1') == [1, 2]
        assert len({each.connection for each in receivers.received['prompt/1']}) == 1
        wrong = subscribe(caller, f'https://localhost:{receivers.port}/prompt/2', 'named')
        post(caller, 1, queue_name='named')
        assert 'its certificate is not valid' in failed(caller, wrong)


def test_a_webhook_whose_certificate_nobody_believes_is_not_told(
    server: ServerProcess, certificate: pathlib.Path
) -> None:
    caller = RestCaller(server.url)
    with Receivers(certificate) as receivers:
        target = subscribe(caller, receivers.url('prompt/1'))
        post(caller, 1)
        assert 'its certificate is not valid' in failed(caller, target)
        assert receivers.look() == {}


# Where they may go


def notifying(state: pathlib.Path, more: str) -> str:
    """A configuration that notifies, on a store of its own."""
    return (
        '[drivers]\nmessage_store = sqlite\nmanagement_store = sqlite\n'
        f'[drivers:message_store:sqlite]\nuri = sqlite:///{state}/z.sqlite\n'
        f'[drivers:management_store:sqlite]\nuri = sqlite:///{state}/z.sqlite\n'
        f'[storage]\nmessage_pipeline = zaqar.notification.notifier\n{more}'
    )


@pytest.mark.parametrize(
    'subscriber',
    [
        *('http://169.254.169.254/latest', 'http://[fd00:ec2::254]/', 'https://0.0.0.0:8888/'),
        *('http://[::]/', 'http://[::ffff:169.254.169.254]/', 'http://[64:ff9b::a9fe:a9fe]/'),
        *('http://2852039166/', 'http://0xa9fea9fe/', 'http://0251.0376.0251.0376/'),
        *('http://169.254.43518/', 'trust+http://169.254.169.254/', 'HTTP://224.0.0.1/'),
        *('http://user:pass@169.254.169.254/', 'http://[fe80::1%25lo]/'),
    ],
)
def test_a_literal_address_that_is_denied_is_refused(api: Any, subscriber: str) -> None:
    answer = api.call('subscription_create', queue_name='q', subscriber=subscriber)
    assert answer.status == 400
    assert '$.subscriber' in str(answer.body) or 'subscriber type' in str(answer.body)
    target = subscribe(api, 'http://subscriber.example')
    answer = api.call('subscription_update', **target, subscriber=subscriber)
    assert answer.status == 400


@pytest.mark.parametrize(
    'subscriber',
    ['http:///path', 'http://', 'http://a:0/', 'http://a:65536/', 'http://a:x/', 'https://:80/'],
)
def test_a_url_that_leads_nowhere_is_refused(api: Any, subscriber: str) -> None:
    answer = api.call('subscription_create', queue_name='q', subscriber=subscriber)
    assert answer.status == 400


@pytest.fixture(scope='module')
def choosy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that denies loopback, but for one address, and follows two redirects."""
    state = tmp_path_factory.mktemp('choosy')
    config = (
        '[drivers:transport:gevent]\nwebhook_denied_networks = 127.0.0.0/8, ::1/128\n'
        'webhook_allowed_networks = 127.0.0.1/32\nwebhook_redirects = 2\n'
    )
    with ServerProcess(state, config=notifying(state, config)) as server:
        yield server


def test_a_name_that_leads_to_a_denied_address_is_not_connected_to(
    tmp_path: pathlib.Path, receivers: Receivers
) -> None:
    config = '[drivers:transport:gevent]\nwebhook_denied_networks = 127.0.0.0/8, ::1/128\n'
    with ServerProcess(tmp_path, config=notifying(tmp_path, config)) as server:
        caller = RestCaller(server.url)
        path = f'prompt/{caller.identity.project_id}'
        target = subscribe(caller, f'http://localhost:{receivers.port}/{path}')
        post(caller, 1)
        assert 'webhooks may not go to' in failed(caller, target)
        assert state_of(caller, target)['dropped'] == 1
        assert path not in receivers.look()


def test_the_addresses_of_a_name_that_are_allowed_are_used(
    choosy: ServerProcess, receivers: Receivers
) -> None:
    caller = RestCaller(choosy.url)
    path = f'prompt/{caller.identity.project_id}'
    subscribe(caller, f'http://localhost:{receivers.port}/{path}')
    post(caller, 1)
    assert bodies(receivers, 1, path) == [1]


def test_redirects_are_followed_where_the_server_says_so(
    choosy: ServerProcess, receivers: Receivers
) -> None:
    caller = RestCaller(choosy.url)
    path = f'prompt/{caller.identity.project_id}'
    subscribe(caller, receivers.url(f'redirect//redirect//{path}'), webhook_secret=SECRET)
    post(caller, 1)
    [received] = receivers.wait_for(1, path)
    assert received.document['body'] == 1
    assert verify(received, SECRET)


def test_but_only_so_many(choosy: ServerProcess, receivers: Receivers) -> None:
    caller = RestCaller(choosy.url)
    path = f'prompt/{caller.identity.project_id}'
    target = subscribe(caller, receivers.url(f'redirect//redirect//redirect//{path}'))
    post(caller, 1)
    assert failed(caller, target) == 'it answered 307, a redirect that is not followed'
    assert path not in receivers.look()


def test_each_redirect_is_checked(choosy: ServerProcess, receivers: Receivers) -> None:
    caller = RestCaller(choosy.url)
    path = f'prompt/{caller.identity.project_id}'
    elsewhere = f'http://127.0.0.2:{receivers.port}/{path}'
    target = subscribe(caller, receivers.url(f'redirect/{elsewhere}'))
    post(caller, 1)
    assert '127.0.0.2' in failed(caller, target)
    assert path not in receivers.look()


def test_a_redirect_to_somebody_else_takes_no_credentials_along(
    choosy: ServerProcess, receivers: Receivers
) -> None:
    caller = RestCaller(choosy.url)
    path = f'prompt/{caller.identity.project_id}'
    headers = {'Authorization': 'Bearer x', 'X-Auth-Token': 'x', 'Cookie': 'x', 'X-Own': 'x'}
    with Receivers() as others:
        url = receivers.url(f'redirect/{others.url(path)}')
        subscribe(caller, url, post_headers=headers)
        post(caller, 1)
        [received] = others.wait_for(1, path)
    assert received.headers['X-Own'] == 'x'
    assert received.headers['Host'] == f'127.0.0.1:{others.port}'
    assert not {'Authorization', 'X-Auth-Token', 'Cookie'} & set(received.headers)


def test_without_the_option_a_redirect_is_a_failure(api: Any, receivers: Receivers) -> None:
    path = f'prompt/{api.identity.project_id}'
    target = subscribe(api, receivers.url(f'redirect//{path}'))
    post(api, 1)
    assert failed(api, target) == 'it answered 307, a redirect that is not followed'
    assert path not in receivers.look()


@pytest.mark.parametrize('option', ['webhook_allowed_networks', 'webhook_denied_networks'])
def test_a_network_that_is_none_keeps_the_server_from_starting(
    tmp_path: pathlib.Path, option: str
) -> None:
    config = f'[drivers:transport:gevent]\n{option} = 10.0.0.0/33\n'
    server = ServerProcess(tmp_path, config=config)
    with pytest.raises(AssertionError, match='did not start'):
        server.start()
    assert option in '\n'.join(server.output)
    assert 'Traceback' not in '\n'.join(server.output)


# With authentication


@contextlib.contextmanager
def guarded(state: pathlib.Path, *more: str) -> Iterator[tuple[ServerProcess, RestCaller]]:
    """A server that wants tokens, and a caller who has one."""
    policy = state / 'policy.yaml'
    policy.write_text('')
    with IdentityService() as service:
        trustee = (
            *('[trustee]', f'auth_url = {service.url}', 'auth_type = password'),
            *('username = zaqar', 'password = a password', 'user_domain_id = home'),
        )
        config = '\n'.join((configuration(service, policy), *trustee, *more))
        with ServerProcess(state, config=config) as server:
            caller = RestCaller(server.url)
            caller.session.headers['X-Auth-Token'] = service.issue(caller.identity.project_id)
            yield server, caller


def test_with_authentication_loopback_is_denied(
    tmp_path: pathlib.Path, receivers: Receivers
) -> None:
    with guarded(tmp_path) as (_, caller):
        for host in ('127.0.0.1', '[::1]', '127.1', '[::ffff:127.0.0.1]', '0x7f000001'):
            answer = caller.call(
                'subscription_create', queue_name='q', subscriber=f'http://{host}:8888/'
            )
            assert answer.status == 400
            assert 'webhooks may not go to' in str(answer.body)
        path = f'prompt/{caller.identity.project_id}'
        target = subscribe(caller, f'http://localhost:{receivers.port}/{path}')
        post(caller, 1)
        assert 'webhooks may not go to' in failed(caller, target)
        assert path not in receivers.look()
        assert subscribe(caller, 'http://10.0.0.1/')


def test_a_webhook_with_a_trust_has_a_token(tmp_path: pathlib.Path, receivers: Receivers) -> None:
    options = '[drivers:transport:gevent]\nwebhook_allowed_networks = 127.0.0.0/8'
    with guarded(tmp_path, options) as (_, caller):
        path = f'prompt/{caller.identity.project_id}'
        subscribe(caller, f'trust+{receivers.url(path)}', trust_id='a trust')
        post(caller, 1, 2)
        for received in receivers.wait_for(2, path):
            assert received.headers['X-Auth-Token'] == 'service'


# Bounds


@pytest.mark.parametrize(
    ('options', 'place'),
    [
        ({'_retry_policy': {'maximum_delay': 400_000_000}}, '_retry_policy.maximum_delay'),
        ({'_retry_policy': {'maximum_delay': 3601}}, '_retry_policy.maximum_delay'),
        ({'_retry_policy': {'minimum_delay': -1}}, '_retry_policy.minimum_delay'),
        ({'_retry_policy': {'retries_with_no_delay': 101}}, '_retry_policy.retries_with_no_delay'),
        ({'post_data': '"$zaqar_message$"' * 11}, 'post_data'),
        ({'post_headers': {'a b': 'c'}}, 'post_headers'),
        ({'post_headers': {'a': 'b\r\nc: d'}}, 'post_headers'),
        ({'post_headers': {'a': '\u20ac'}}, 'post_headers'),
        ({'post_headers': {'': 'b'}}, 'post_headers'),
        ({'post_headers': {'Content-Length': '0'}}, 'post_headers'),
        ({'post_headers': {'transfer-encoding': 'chunked'}}, 'post_headers'),
        ({'post_headers': {'a': 'x' * 9000}}, 'post_headers'),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    api: Any, options: dict[str, Any], place: str
) -> None:
    arguments = {'queue_name': 'q', 'subscriber': 'http://subscriber.example'}
    answer = api.call('subscription_create', **arguments, options=options)
    assert answer.status == 400
    assert f'$.options.{place}' in str(answer.body)
    target = subscribe(api, 'http://subscriber.example')
    assert api.call('subscription_update', **target, options=options).status == 400


def test_the_policy_of_a_queue_is_bounded_too(api: Any) -> None:
    metadata = {'_retry_policy': {'maximum_delay': 400_000_000}}
    answer = api.call('queue_create', queue_name='q', metadata=metadata)
    assert answer.status == 400
    assert '_retry_policy.maximum_delay' in str(answer.body)
    api.call('queue_create', queue_name='q')
    change = {'op': 'add', 'path': '/metadata/_retry_policy', 'value': metadata['_retry_policy']}
    answer = api.call('queue_update', queue_name='q', changes=[change])
    assert answer.status == 400
    assert '_retry_policy.maximum_delay' in str(answer.body)


# Loops


POSTED = '{"messages": [{"body": "$zaqar_message$", "ttl": 300}]}'


def total(caller: RestCaller, queue_name: str) -> int:
    count: int = caller.call('queue_get_stats', queue_name=queue_name).body['messages']['total']
    return count


def forward(server: ServerProcess, caller: RestCaller, source: str, to: str) -> dict[str, str]:
    """Have the messages of one queue posted to another one."""
    return subscribe(
        caller,
        f'{server.url}/v2/queues/{to}/messages?from={source}',
        source,
        post_data=POSTED,
        post_headers=caller.identity.headers(),
    )


def test_a_webhook_to_its_own_queue_ends_at_once(server: ServerProcess) -> None:
    caller = RestCaller(server.url)
    target = forward(server, caller, 'q', 'q')
    post(caller, 1)
    assert failed(caller, target) == 'it answered 400'
    assert state_of(caller, target)['waiting'] == 0
    assert total(caller, 'q') == 1


def test_so_does_one_over_others_and_by_a_presigned_url(tmp_path: pathlib.Path) -> None:
    config = notifying(tmp_path, '[signed_url]\nsecret_key = key\n')
    with ServerProcess(tmp_path, config=config) as server:
        caller = RestCaller(server.url)
        forward(server, caller, 'a', 'b')
        shared = caller.call('queue_share', queue_name='a', methods=['POST']).body
        target = subscribe(
            caller,
            f'{server.url}/v2/queues/a/messages',
            'b',
            post_data=POSTED,
            post_headers={
                'URL-Signature': shared['signature'],
                'URL-Expires': shared['expires'],
                'URL-Methods': ','.join(shared['methods']),
                'URL-Paths': ','.join(shared['paths']),
                **caller.identity.headers(),
            },
        )
        post(caller, 1, queue_name='a')
        assert failed(caller, target) == 'it answered 400'
        assert (total(caller, 'a'), total(caller, 'b')) == (1, 1)


def test_a_chain_is_no_loop_but_has_an_end(server: ServerProcess) -> None:
    caller = RestCaller(server.url)
    targets = [forward(server, caller, f'c{n}', f'c{n + 1}') for n in range(6)]
    post(caller, 1, queue_name='c0')
    assert failed(caller, targets[4]) == 'it answered 400'
    assert [total(caller, f'c{n}') for n in range(7)] == [1, 1, 1, 1, 1, 0, 0]


# Several servers and mail


@pytest.fixture
def two(tmp_path: pathlib.Path) -> Iterator[tuple[RestCaller, RestCaller]]:
    """Callers of one project at two servers with one store."""
    config = notifying(tmp_path, '')
    with (
        ServerProcess(tmp_path / 'a', config=config) as first,
        ServerProcess(tmp_path / 'b', config=config) as second,
    ):
        caller = RestCaller(first.url)
        yield caller, RestCaller(second.url, identity=caller.identity)


def test_a_subscription_that_another_process_deletes_is_not_tried_again(
    two: tuple[RestCaller, RestCaller], receivers: Receivers
) -> None:
    one, other = two
    path = f'status/500//{one.identity.project_id}'
    target = subscribe(one, receivers.url(path))
    post(one, 1, 2)
    failed(one, target)
    assert other.call('subscription_delete', **target).status == 204
    assert_silent(receivers, path, known_after=1.0)


def test_one_that_another_process_changes_is_tried_as_it_is_now(
    two: tuple[RestCaller, RestCaller], receivers: Receivers
) -> None:
    one, other = two
    path = one.identity.project_id
    target = subscribe(one, receivers.url(f'status/500//{path}'))
    post(one, 1, 2)
    failed(one, target)
    changed = other.call(
        'subscription_update', **target, subscriber=receivers.url(f'prompt/{path}')
    )
    assert changed.status == 204
    assert bodies(receivers, 2, f'prompt/{path}') == [1, 2]


def test_webhooks_work_with_upstreams_stores(tmp_path: pathlib.Path, receivers: Receivers) -> None:
    with RedisProcess(tmp_path) as redis:
        config = ON_REDIS.format(redis=redis.patient_uri)
        config += '[storage]\nmessage_pipeline = zaqar.notification.notifier\n'
        with ServerProcess(tmp_path, config=config) as server:
            caller = RestCaller(server.url)
            path = f'status/503/2/{caller.identity.project_id}'
            options = {'webhook_secret': SECRET, '_retry_policy': AT_ONCE}
            target = subscribe(caller, receivers.url(path), **options)
            post(caller, 1, 2)
            assert bodies(receivers, 4, path) == [1, 1, 1, 2]
            assert all(verify(received, SECRET) for received in receivers.received[path])
            changed = caller.call('subscription_update', **target, options={'a': 1})
            assert changed.status == 204
            shown = caller.call('subscription_get', **target).body['options']
            assert shown == {'a': 1, 'webhook_secret': True}
            assert caller.call('subscription_delete', **target).status == 204


def test_under_a_worker_that_knows_no_greenlets_webhooks_are_told(
    tmp_path: pathlib.Path, receivers: Receivers
) -> None:
    with gunicorn('sync', tmp_path) as address:
        caller = RestCaller(f'http://{address}')
        path = f'status/503/1/{caller.identity.project_id}'
        target = subscribe(caller, receivers.url(path), _retry_policy=AT_ONCE)
        post(caller, 1, 2)
        assert bodies(receivers, 3, path) == [1, 1, 2]
        state = state_of(caller, target)
        assert state['last_failure']['reason'] == 'it answered 503'


def test_metrics_count_what_is_sent_and_dropped(
    tmp_path: pathlib.Path, receivers: Receivers
) -> None:
    with ServerProcess(tmp_path) as server:
        caller = RestCaller(server.url)
        subscribe(caller, receivers.url('prompt/metrics'))
        refusing = subscribe(caller, receivers.url('status/404//metrics'))
        failing = subscribe(caller, receivers.url('status/500//metrics'))
        post(caller, 1, 2)
        receivers.wait_for(2, 'prompt/metrics')
        assert failed(caller, failing) == 'it answered 500'
        assert failed(caller, refusing) == 'it answered 404'
        receivers.wait_for(2, 'status/404//metrics')
        exposed: dict[Any, float] = {}

        def value(name: str, **labels: str) -> float:
            return value_in(exposed, name, channel='webhook', **labels)

        def is_quiet() -> bool:
            exposed.update(read(requests.get(f'{server.url}/metrics', timeout=60).text))
            return value('notifications_waiting') == 2 and value('notifications_running') == 0

        wait_until(is_quiet, 60, 'what could be sent is sent')
    assert value('notification_tries_total', result='delivered') == 2
    assert value('notification_tries_total', result='refused') == 2
    assert value('notification_tries_total', result='failed') >= 1
    assert value('notification_duration_seconds_count') >= 5
    assert value('notifications_dropped_total', reason='refused') == 2
    assert value('notifications_waiting') == 2
    assert value('notifications_waiting_bytes') > 200
    assert value('notifications_running') == 0


def test_mail_that_cannot_be_sent_holds_up_nothing_and_ends(
    tmp_path: pathlib.Path, receivers: Receivers
) -> None:
    command = '/bin/sleep 987654'
    config = (
        f'[notification]\nsmtp_command = {command}\nmax_notifier_workers = 2\n'
        '[drivers:transport:gevent]\nmail_timeout = 1\n'
    )
    with ServerProcess(tmp_path, config=notifying(tmp_path, config)) as server:
        caller = RestCaller(server.url)
        path = f'prompt/{caller.identity.project_id}'
        target = subscribe(caller, 'mailto:a@example.com')
        subscribe(caller, receivers.url(path))
        for number in range(20):
            post(caller, number)
        assert bodies(receivers, 20, path) == list(range(20))
        assert failed(caller, target) == 'not done within 1 s'
        caller.call('subscription_delete', **target)
        time.sleep(2.5)
        left = psutil.Process(server.pid).children(recursive=True)
        assert not [child for child in left if '987654' in child.cmdline()]
