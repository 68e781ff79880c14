"""Attributes of messages, over every transport and on every store that keeps them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import requests

from tests.callers import TRANSPORTS, RestCaller, connect, new_identity
from tests.extensions.conftest import VERSION, Extended
from tests.faults.client import DIALECTS, Dialect
from tests.functional.test_push import Subscriber
from tests.receivers import Receivers
from tests.server_process import ServerProcess

ATTRIBUTES = {'type': 'order', 'region': 'eu', 'note': 'ä "b" 100 %', 'a.B-c_1': ''}
PARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'


def post(api: Any, *messages: dict[str, Any], queue_name: str = 'orders', **more: Any) -> Any:
    new = [{'body': number, 'ttl': 300, **one} for number, one in enumerate(messages)]
    return api.call('message_post', queue_name=queue_name, messages=new, **more)


def attributes_of(messages: list[dict[str, Any]]) -> list[Any]:
    return [message.get('attributes') for message in messages]


def test_they_are_given_back_wherever_messages_are(extended: Extended) -> None:
    answer = post(extended, {'attributes': ATTRIBUTES}, {}, {'attributes': {}})
    assert answer.status == 201
    ids = answer.body['message_ids']
    expected = [ATTRIBUTES, None, None]
    target = {'queue_name': 'orders'}
    listed = extended.call('message_list', **target, echo=True).body['messages']
    assert attributes_of(listed) == expected
    assert [message['body'] for message in listed] == [0, 1, 2]
    got = extended.call('message_get', **target, message_id=ids[0]).body['messages']
    assert got['attributes'] == ATTRIBUTES
    several = extended.call('message_get_many', **target, message_ids=ids).body['messages']
    assert sorted(attributes_of(several), key=bool) == [None, None, ATTRIBUTES]
    claim = extended.call('claim_create', **target, ttl=60, grace=60).body
    assert attributes_of(claim['messages']) == expected
    held = extended.call('claim_get', **target, claim_id=claim['claim_id']).body['messages']
    assert sorted(attributes_of(held), key=bool) == [None, None, ATTRIBUTES]
    assert extended.call('claim_delete', **target, claim_id=claim['claim_id']).status == 204
    popped = extended.call('message_delete_many', **target, pop=3).body['messages']
    assert attributes_of(popped) == expected


def test_they_stay_with_dead_letters(extended: Extended) -> None:
    metadata = {'_dead_letter_queue': 'dead', '_max_claim_count': 1}
    assert extended.call('queue_create', queue_name='orders', metadata=metadata).status == 201
    assert post(extended, {'attributes': ATTRIBUTES}).status == 201
    claim = extended.call('claim_create', queue_name='orders', ttl=60, grace=60).body
    extended.call('claim_delete', queue_name='orders', claim_id=claim['claim_id'])
    assert extended.call('claim_create', queue_name='orders', ttl=60, grace=60).status == 204
    dead = extended.call('message_list', queue_name='dead', echo=True).body['messages']
    assert attributes_of(dead) == [ATTRIBUTES]


def test_who_does_not_ask_sees_the_members_of_upstream_only(extended: Extended) -> None:
    post(extended, {'attributes': ATTRIBUTES})
    plain = extended.plain
    target = {'queue_name': 'orders'}
    [listed] = plain.call('message_list', **target, echo=True).body['messages']
    # `zaqar.v2` is younger than all members.
    is_known = getattr(plain, 'subprotocols', ()) != ()
    assert ('attributes' in listed) is is_known
    popped = plain.call('message_delete_many', **target, pop=1).body['messages']
    assert ('attributes' in popped[0]) is is_known
    assert {'position', 'group', 'dead_letter', 'extras'}.isdisjoint(popped[0])


@pytest.mark.parametrize(
    ('attributes', 'told'),
    [
        ({f'a{number}': '' for number in range(33)}, 'at most 32 attributes, not 33'),
        ({'a': 'ä' * 4096}, 'at most 8192 bytes together, not 8193'),
        ({'no name': ''}, "unlike 'no name'"),
        ({'': ''}, "unlike ''"),
        ({'n' * 129: ''}, '1 to 128 letters'),
        ({'snö': ''}, "unlike 'snö'"),
        ({'a': '', 'A': ''}, 'differ in case only'),
        ({'a': 1}, 'must be a string, not an integer'),
        ({'a': None}, 'must be a string, not null'),
        (['a'], 'not a list'),
    ],
)
def test_what_cannot_be_attributes_is_refused_with_its_place(
    api: Any, attributes: Any, told: str
) -> None:
    answer = post(api, {}, {'attributes': attributes})
    assert answer.status == 400
    description = answer.body.get('description') or answer.body['error']
    assert told in description
    assert 'at `$.messages[1].attributes' in description


def test_as_many_and_as_long_as_allowed_are_kept(extended: Extended) -> None:
    attributes = {f'n{number:02d}': 'x' * 253 for number in range(32)}
    assert post(extended, {'attributes': attributes}).status == 201
    [listed] = extended.call('message_list', queue_name='orders', echo=True).body['messages']
    assert listed['attributes'] == attributes


def test_a_store_that_does_not_keep_them_says_so(incapable: Any) -> None:
    for _ in TRANSPORTS:
        caller = incapable()
        answer = post(caller, {}, {'attributes': ATTRIBUTES})
        assert answer.status == 400
        assert 'cannot keep attributes of messages' in str(answer.body)
        assert '$.messages[1].attributes' in str(answer.body)
        assert post(caller, {'attributes': {}}).status == 201
        caller.close()


# The version


def test_the_answer_says_which_version_it_is_in(server: ServerProcess) -> None:
    rest = RestCaller(server.url)
    url = f'{server.url}/v2/queues'
    own = rest.identity.headers()
    plain = requests.get(url, headers=own, timeout=60)
    assert 'OpenStack-API-Version' not in plain.headers
    assert 'OpenStack-API-Version' not in plain.headers.get('Vary', '')
    for asked, told in (('latest', '2.1'), ('2.1', '2.1'), ('2.0', '2.0')):
        headers = {**own, 'OpenStack-API-Version': f'messaging {asked}'}
        answer = requests.get(url, headers=headers, timeout=60)
        assert answer.headers['OpenStack-API-Version'] == f'messaging {told}'
        assert 'OpenStack-API-Version' in answer.headers['Vary']
        assert answer.content == plain.content
    refused = requests.get(
        url, headers={**own, 'OpenStack-API-Version': 'messaging 2.2'}, timeout=60
    )
    assert refused.status_code == 406
    assert '2.0 to 2.1' in refused.json()['description']
    assert 'OpenStack-API-Version' in refused.headers['Vary']
    missing = requests.get(f'{url}/q/messages/none', headers={**own, **VERSION}, timeout=60)
    assert missing.status_code == 404
    assert missing.headers['OpenStack-API-Version'] == 'messaging 2.1'
    latest = {'OpenStack-API-Version': 'messaging latest'}
    [version] = requests.get(server.url, headers=latest, timeout=60).json()['versions']
    assert (version['min_version'], version['max_version']) == ('2.0', '2.1')
    for path in ('/', '/v2/'):
        described = requests.get(server.url + path, headers=own, timeout=60)
        assert described.headers['Vary'] == 'OpenStack-API-Version'
    [version] = requests.get(server.url, timeout=60).json()['versions']
    assert 'min_version' not in version


@pytest.mark.parametrize(('asked', 'status'), [('2.1x', 400), ('2', 400), (f'{10**20}.1', 406)])
def test_a_wrong_version_is_refused_but_where_versions_are_listed(
    server: ServerProcess, asked: str, status: int
) -> None:
    header = {'OpenStack-API-Version': f'messaging {asked}'}
    for transport in TRANSPORTS:
        caller = connect(transport, server.url, server.websocket_url)
        headers = {**caller.identity.headers(), **header}
        # `zaqar.v2` is always in the latest version.
        expected = 200 if transport.startswith('v2') else status
        for _ in range(2):
            assert caller.call('queue_list', headers=headers).status == expected, transport
            answer = caller.call('get_versions', headers=headers)
            assert answer.status == 300
            [version] = answer.body['versions']
            assert (version['min_version'], version['max_version']) == ('2.0', '2.1')
        assert caller.call('queue_list').status == 200
        caller.close()
    found = requests.get(server.url, headers=header, timeout=60)
    assert (found.status_code, found.headers['OpenStack-API-Version']) == (300, 'messaging 2.1')


@pytest.mark.parametrize('transport', ['ws-json', 'ws-msgpack'])
def test_so_does_an_answer_in_the_default_envelope(server: ServerProcess, transport: str) -> None:
    caller = connect(transport, server.url, server.websocket_url)
    document = {'action': 'queue_list', 'headers': caller.identity.headers(), 'body': {}}

    def ask(**more: str) -> dict[str, Any]:
        asked = {**document, 'headers': {**document['headers'], **more}}
        encode = json.dumps(asked).encode() if transport == 'ws-json' else _pack(asked)
        headers: dict[str, Any] = caller.exchange(encode)['headers']
        return headers

    assert ask() == {'status': 200}
    assert ask(**VERSION) == {'status': 200, 'OpenStack-API-Version': 'messaging 2.1'}
    refused = ask(**{'openstack-api-version': 'messaging 9.9'})
    assert refused['status'] == 406
    assert ask() == {'status': 200}
    caller.close()


def _pack(document: Any) -> bytes:
    import msgpack

    packed: bytes = msgpack.packb(document)
    return packed


# Pushes and webhooks


@pytest.mark.parametrize('dialect', DIALECTS, ids=str)
@pytest.mark.parametrize('asks', [True, False])
def test_they_are_pushed_to_who_knows_them(
    server: ServerProcess, dialect: Dialect, asks: bool
) -> None:
    identity = new_identity()
    poster = RestCaller(server.url, identity=identity)
    headers = {**identity.headers(), **(VERSION if asks else {})}
    with Subscriber(server.port, dialect, identity=identity) as subscriber:
        request: dict[str, Any] = {'action': 'subscription_create', 'headers': headers, 'id': 1}
        request['body'] = {'queue_name': 'orders'}
        subscriber.send(subscriber.frame(request))
        assert dialect.status(subscriber.answer()) == 201
        post(poster, {'attributes': ATTRIBUTES})
        pushed = subscriber.push()
    message = pushed['message'] if dialect.subprotocol else pushed
    is_shown = asks or bool(dialect.subprotocol)
    assert message.get('attributes') == (ATTRIBUTES if is_shown else None)
    assert message['body'] == 0


def test_webhooks_get_them_as_headers_and_their_body_is_upstreams(api: Any) -> None:
    with Receivers() as receivers:
        path = f'prompt/{api.identity.project_id}'
        created = api.call(
            'subscription_create', queue_name='orders', subscriber=receivers.url(path), options={}
        )
        assert created.status == 201
        attributes = {**ATTRIBUTES, 'traceparent': PARENT, 'tracestate': 'a=1'}
        assert post(api, {'attributes': attributes}).status == 201
        assert post(api, {'attributes': attributes, 'delay': 1}).status == 201
        received = receivers.wait_for(2, path)
    for each in received:
        headers = {name.lower(): value for name, value in each.headers.items()}
        assert headers['zaqar-attribute-type'] == 'order'
        assert headers['zaqar-attribute-a.b-c_1'] == ''
        assert headers['zaqar-attribute-note'] == '%C3%A4%20%22b%22%20100%20%25'
        assert headers['traceparent'] == PARENT
        assert headers['tracestate'] == 'a=1'
        assert 'attributes' not in each.document


# Traces


def traced(extended: Any) -> dict[str, str]:
    return {**extended.identity.headers(), 'traceparent': PARENT, 'tracestate': 'vendor=x'}


def test_a_request_s_trace_becomes_attributes_where_the_queue_wants_it(extended: Extended) -> None:
    for name, is_wanted in (('traced', True), ('other', False)):
        metadata = {'_trace_context': is_wanted}
        assert extended.call('queue_create', queue_name=name, metadata=metadata).status == 201
        own = {'traceparent': PARENT.replace('01', '00'), 'a': '1'}
        new = ({}, {'attributes': {'a': '1'}}, {'attributes': own})
        assert post(extended, *new, queue_name=name, headers=traced(extended)).status == 201
        listed = extended.call('message_list', queue_name=name, echo=True).body['messages']
        trace = {'traceparent': PARENT, 'tracestate': 'vendor=x'}
        if is_wanted:
            assert attributes_of(listed) == [trace, {'a': '1', **trace}, own]
        else:
            assert attributes_of(listed) == [None, {'a': '1'}, own]


def test_a_trace_takes_no_attribute_s_place(extended: Extended) -> None:
    metadata = {'_trace_context': True}
    assert extended.call('queue_create', queue_name='q', metadata=metadata).status == 201
    full = [{f'name{number}': '' for number in range(32)}, {'a': 'x' * 8191}, {'TraceParent': 'y'}]
    new = [{'attributes': one} for one in full]
    assert post(extended, *new, queue_name='q', headers=traced(extended)).status == 201
    listed = extended.call('message_list', queue_name='q', echo=True).body['messages']
    assert attributes_of(listed) == full


@pytest.mark.parametrize(
    'parent',
    ['', 'x', f'{PARENT}x', PARENT.upper(), f'ff{PARENT[2:]}', f'00-{"0" * 32}{PARENT[35:]}'],
)
def test_what_is_no_trace_is_none(api: Any, parent: str) -> None:
    api.call('queue_create', queue_name='q', metadata={'_trace_context': True})
    headers = {**api.identity.headers(), **VERSION, 'traceparent': parent}
    assert post(api, {}, queue_name='q', headers=headers).status == 201
    listed = api.call('message_list', queue_name='q', echo=True, headers=headers).body['messages']
    assert attributes_of(listed) == [None]


def test_the_access_log_has_the_trace_id(tmp_path: Any) -> None:
    log = tmp_path / 'access.log'
    config = f'[drivers:transport:gevent]\naccess_log = {log}\n'
    with ServerProcess(tmp_path / 'state', config=config) as process:
        for transport in TRANSPORTS:
            caller = connect(transport, process.url, process.websocket_url)
            assert post(caller, {}, headers=traced(caller)).status == 201
            assert post(caller, {}).status == 201
            caller.close()
        deadline = time.monotonic() + 10
        while len(lines := log.read_text().splitlines()) < 2 * len(TRANSPORTS):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    ids = [json.loads(line).get('trace_id') for line in lines]
    assert ids == ['4bf92f3577b34da6a3ce929d0e0e4736', None] * len(TRANSPORTS)
