"""Pre-signed URLs, over every transport alike."""

from __future__ import annotations

import datetime
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_utils import timeutils
from zaqar.common import urls

from tests.api.test_messages import bodies_of, post
from tests.callers import TRANSPORTS, Answer, RestCaller, connect
from tests.server_process import ServerProcess

KEY = 'a secret of this server'
CONFIG = """
    [signed_url]
    secret_key = {key}
    [oslo_policy]
    policy_file = {policy_file}
    """


@pytest.fixture(scope='module')
def signing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp('signing')
    policy_file = directory / 'policy.json'
    policy_file.write_text(json.dumps({'messages:delete_all': 'role:cleaner'}))
    config = CONFIG.format(key=KEY, policy_file=policy_file)
    with ServerProcess(directory, config=config) as process:
        yield process


@pytest.fixture(params=TRANSPORTS)
def signing(request: pytest.FixtureRequest, signing_server: ServerProcess) -> Iterator[Any]:
    """A caller over each transport in turn, of a server that signs."""
    caller = connect(request.param, signing_server.url, signing_server.websocket_url)
    yield caller
    caller.close()


def share(api: Any, queue_name: str = 'orders', **arguments: Any) -> dict[str, str]:
    """The headers of a request that presents a new pre-signed URL."""
    answer = api.call('queue_share', queue_name=queue_name, **arguments)
    assert answer.status == 200
    signed = answer.body
    return {
        **api.identity.headers(),
        'URL-Signature': signed['signature'],
        'URL-Expires': signed['expires'],
        'URL-Methods': ','.join(signed['methods']),
        'URL-Paths': ','.join(signed['paths']),
    }


def signed_by(
    api: Any, key: str, path: str = '/v2/queues/orders/messages', method: str = 'GET'
) -> dict[str, str]:
    """The same for one path and method and the coming day, signed here."""
    project = api.identity.project_id
    signed = urls.create_signed_url(key, [path], project=project, methods=[method])
    return {
        **api.identity.headers(),
        'URL-Signature': signed['signature'],
        'URL-Expires': signed['expires'],
        'URL-Methods': method,
        'URL-Paths': path,
    }


def list_with(api: Any, headers: dict[str, str], queue_name: str = 'orders') -> Answer:
    answer: Answer = api.call('message_list', headers, queue_name=queue_name, echo=True)
    return answer


def test_a_shared_queue_tells_what_was_signed(signing: Any) -> None:
    answer = signing.call(
        'queue_share',
        queue_name='orders',
        methods=['POST', 'GET'],
        paths=['messages', 'claims'],
        expires='2100-01-01T01:00:00+01:00',
    )
    assert answer.status == 200
    assert len(answer.body.pop('signature')) == 64
    assert answer.body == {
        'paths': ['/v2/queues/orders/claims', '/v2/queues/orders/messages'],
        'methods': ['GET', 'POST'],
        'project': signing.identity.project_id,
        'expires': '2100-01-01T00:00:00',
    }


def test_it_opens_the_messages_of_the_queue_to_reading(signing: Any) -> None:
    post(signing, 1, 2)
    assert bodies_of(list_with(signing, share(signing))) == [1, 2]


def test_it_opens_a_message_below_the_signed_path(signing: Any) -> None:
    [message_id] = post(signing, 'this one')
    target = {'queue_name': 'orders', 'message_id': message_id}
    answer = signing.call('message_get', share(signing), **target)
    assert answer.status == 200
    assert answer.body['messages']['body'] == 'this one'


def test_it_opens_what_else_was_asked_for(signing: Any) -> None:
    headers = share(signing, methods=['POST'], paths=['messages', 'claims'])
    messages = [{'body': 1}]
    answer = signing.call('message_post', headers, queue_name='orders', messages=messages)
    assert answer.status == 201
    assert signing.call('claim_create', headers, queue_name='orders').status == 201


@pytest.mark.parametrize('queue_name', ['bills', 'orders2', 'orders.old', 'order', 'Orders'])
def test_another_queue_stays_closed(signing: Any, queue_name: str) -> None:
    assert list_with(signing, share(signing), queue_name).status == 404


@pytest.mark.parametrize(('signed', 'asked'), [('a.b', 'axb'), ('messages', 'orders')])
def test_a_name_is_no_pattern(signing: Any, signed: str, asked: str) -> None:
    headers = share(signing, signed)
    assert list_with(signing, headers, signed).status == 200
    assert list_with(signing, headers, asked).status == 404


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('queue_get', {}),
        ('queue_get_stats', {}),
        ('queue_list', {}),
        ('subscription_list', {}),
        ('claim_get', {'claim_id': 'x'}),
    ],
)
def test_other_paths_stay_closed(signing: Any, action: str, arguments: dict[str, Any]) -> None:
    post(signing, 1)
    target = {} if action == 'queue_list' else {'queue_name': 'orders'}
    assert signing.call(action, share(signing), **target, **arguments).status == 404


@pytest.mark.parametrize(
    'paths',
    [
        '/v2/queues',
        '/v2/queues/orders',
        '/v2/queues/orders/mess',
        '/v2/queues/orders/messages/',
        '/v2/queues/.*/messages',
        '/',
        '',
    ],
)
def test_a_prefix_or_a_pattern_opens_nothing(signing: Any, paths: str) -> None:
    headers = share(signing)
    assert list_with(signing, headers | {'URL-Paths': paths}).status == 404
    both = f'{headers["URL-Paths"]},{paths}'
    assert list_with(signing, headers | {'URL-Paths': both}).status == 404


@pytest.mark.parametrize('message_id', ['../../bills/messages', 'x/y', '', 'x%2Fy'])
def test_a_message_id_does_not_lead_elsewhere(signing: Any, message_id: str) -> None:
    post(signing, 1)
    post(signing, 'of another', queue_name='bills')
    target = {'queue_name': 'orders', 'message_id': message_id}
    answer = signing.call('message_get', share(signing), **target)
    assert answer.status in (200, 404)
    assert 'of another' not in str(answer.body)


def test_a_queue_name_with_a_slash_does_not_pass_for_the_signed_path(signing: Any) -> None:
    post(signing, 'of another', queue_name='bills')
    for name in ('bills/messages', 'orders/../bills/messages'):
        assert signing.call('queue_get', share(signing), queue_name=name).status == 404
    answer = signing.call('queue_get', share(signing), queue_name='orders/messages')
    if isinstance(signing, RestCaller):
        # An HTTP server sees no difference between %2F and /: it is the list that was signed.
        assert answer == (200, {'messages': []})
    else:
        assert answer.status == 404


def test_two_segments_below_stay_closed(signing: Any) -> None:
    created = signing.call(
        'subscription_create', queue_name='orders', subscriber='http://subscriber.example'
    )
    target = {'queue_name': 'orders', 'subscription_id': created.body['subscription_id']}
    headers = share(signing, paths=['subscriptions'], methods=['GET', 'PUT'])
    assert signing.call('subscription_get', headers, **target).status == 200
    answer = signing.call('subscription_confirm', headers, **target, confirmed=True)
    assert answer.status == 404


def test_a_subscriber_confirms_with_the_url_that_it_was_sent(signing: Any) -> None:
    created = signing.call(
        'subscription_create', queue_name='orders', subscriber='http://subscriber.example'
    )
    target = {'queue_name': 'orders', 'subscription_id': created.body['subscription_id']}
    path = f'/v2/queues/orders/subscriptions/{target["subscription_id"]}/confirm'
    headers = signed_by(signing, KEY, path, 'PUT')
    answer = signing.call('subscription_confirm', headers, **target, confirmed=True)
    assert answer.status == 204
    assert signing.call('subscription_get', **target).body['confirmed'] is True
    assert signing.call('subscription_get', headers, **target).status == 404


def test_another_method_stays_closed(signing: Any) -> None:
    headers = share(signing, methods=['GET'])
    messages = [{'body': 1}]
    target = {'queue_name': 'orders', 'messages': messages}
    assert signing.call('message_post', headers, **target).status == 404
    forged = headers | {'URL-Methods': 'GET,POST'}
    assert signing.call('message_post', forged, **target).status == 404
    assert bodies_of(signing.call('message_list', queue_name='orders', echo=True)) == []


def test_another_project_stays_closed(signing: Any) -> None:
    headers = share(signing) | {'X-Project-ID': 'another'}
    assert list_with(signing, headers).status == 404


@pytest.mark.parametrize('expires', ['2015-01-01T00:00:00', '2100-01-01T00:00:00', '', 'soon', '0'])
def test_another_expiry_opens_nothing(signing: Any, expires: str) -> None:
    assert list_with(signing, share(signing) | {'URL-Expires': expires}).status == 404


@pytest.mark.parametrize('name', ['URL-Expires', 'URL-Methods', 'URL-Paths', 'X-Project-ID'])
def test_every_header_is_needed(signing: Any, name: str) -> None:
    headers = share(signing)
    del headers[name]
    assert list_with(signing, headers).status == 404


def test_it_expires(signing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = timeutils.utcnow()
    with monkeypatch.context() as patch:
        patch.setattr(timeutils, 'utcnow', lambda: now - datetime.timedelta(hours=25))
        stale = signed_by(signing, KEY)
    assert list_with(signing, signed_by(signing, KEY)).status == 200
    assert list_with(signing, stale).status == 404


@pytest.mark.parametrize('forge', [lambda s: s[:-1], lambda s: s.upper(), lambda s: '', reversed])
def test_a_signature_that_was_tampered_with_opens_nothing(signing: Any, forge: Any) -> None:
    headers = share(signing)
    forged = ''.join(forge(headers['URL-Signature']))
    assert list_with(signing, headers | {'URL-Signature': forged}).status == 404
    assert signing.call('ping_node').status == 204


def test_roles_are_not_believed_on_top_of_it(signing: Any) -> None:
    post(signing, 1)
    roles = {'X-Roles': 'cleaner', 'X-User-ID': 'somebody'}
    headers = share(signing, methods=['DELETE']) | roles
    request = {'queue_name': 'orders', 'pop': 1}
    assert signing.call('message_delete_many', headers, **request).status == 403
    headers = signing.identity.headers() | roles
    assert signing.call('message_delete_many', headers, **request).status == 200


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ({'methods': 'GET'}, '$.methods'),
        ({'methods': ['FETCH']}, '$.methods[0]'),
        ({'paths': ['stats']}, '$.paths[0]'),
        ({'expires': 'soon'}, '$.expires'),
        ({'expires': '1999-01-01T00:00:00'}, '$.expires'),
        ({'expires': 4102444800}, '$.expires'),
        ({'until': 'soon'}, 'until'),
    ],
)
def test_what_cannot_be_signed_is_named(signing: Any, arguments: dict[str, Any], told: str) -> None:
    answer = signing.call('queue_share', queue_name='orders', **arguments)
    assert answer.status == 400
    assert told in str(answer.body)


def test_a_server_without_a_key_neither_signs_nor_opens(api: Any) -> None:
    answer = api.call('queue_share', queue_name='orders')
    assert answer.status == 400
    assert 'secret_key' in str(answer.body)
    assert list_with(api, signed_by(api, 'guessed')).status == 404


def test_an_empty_key_is_none(tmp_path: pathlib.Path) -> None:
    with ServerProcess(tmp_path, config='[signed_url]\nsecret_key =\n') as process:
        for transport in TRANSPORTS:
            caller = connect(transport, process.url, process.websocket_url)
            assert caller.call('queue_share', queue_name='orders').status == 400
            assert list_with(caller, signed_by(caller, '')).status == 404
            caller.close()


def test_a_signature_is_not_echoed(signing_server: ServerProcess) -> None:
    caller = connect('ws-json', signing_server.url, signing_server.websocket_url)
    headers = share(caller)
    document = {'action': 'message_list', 'headers': headers, 'body': {'queue_name': 'orders'}}
    answer = caller.exchange(json.dumps(document).encode())
    assert answer['headers']['status'] == 200
    assert headers['URL-Signature'] not in str(answer)
    caller.close()


def test_names_of_headers_are_read_in_any_case(signing: Any) -> None:
    headers = {name.lower(): value for name, value in share(signing).items()}
    assert list_with(signing, headers).status == 200
    forged = headers | {'url-signature': 'x'}
    assert list_with(signing, forged).status == 404
