"""Bodies of messages: given out as they were posted, in either encoding."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from tests.api.test_messages import ENCRYPTED, bodies_of, post
from tests.callers import TRANSPORTS, RestCaller, WebSocketCaller, connect
from tests.server_process import ServerProcess

SPELLED = '{ "b" :\t[1.50, -0, 1E2, 9007199254740993],"a":"\\u00fc\\/","a b": {} }'
"""A body whose spelling says more than its value."""

SPELLED_IN_MSGPACK = b'\x82\xa1b\x93\xcd\x00\x01\xd9\x01x\xca\x3f\x00\x00\x00\xa1a\xde\x00\x00'
VALUE_IN_MSGPACK = {'b': [1, 'x', 0.5], 'a': {}}

READS: dict[str, Callable[[Any], Any]] = {
    'list': lambda api: api.call('message_list', queue_name='q', echo=True),
    'claim': lambda api: api.call('claim_create', queue_name='q', ttl=60, grace=60),
    'pop': lambda api: api.call('message_delete_many', queue_name='q', pop=1),
}


def raw_post(body: str | bytes, **more: Any) -> bytes:
    """A post of one message with a body that is encoded already: a text of JSON, or MsgPack."""
    if isinstance(body, str):
        document = json.dumps({'messages': [{'ttl': 300, 'body': '@'}], **more})
        return document.replace('"@"', body).encode()
    return msgpack.packb({'messages': [{'ttl': 300, 'body': '@'}], **more}).replace(b'\xa1@', body)


def send_post(api: Any, body: str | bytes) -> Any:
    """Post a body that is encoded already, as it is."""
    if isinstance(api, RestCaller):
        url = f'{api.url}/v2/queues/q/messages'
        answer = api.session.post(url, data=raw_post(body), headers=api.identity.headers())
        return answer.status_code, answer.text
    arguments = raw_post(body, queue_name='q')
    frame = {'id': 1, 'action': 'message_post', 'headers': api.identity.headers(), 'body': '@@'}
    if isinstance(body, str):
        payload = json.dumps(frame).encode().replace(b'"@@"', arguments)
    else:
        payload = msgpack.packb(frame).replace(b'\xa2@@', arguments)
    answer = api.send_raw(payload)
    return answer.status, str(answer.body)


class Listener:
    """A reader of the same project over another transport, which shows its answers as they come."""

    def __init__(self, transport: str, server: ServerProcess, identity: Any) -> None:
        self.caller = connect(transport, server.url, server.websocket_url)
        self.caller.identity = identity
        self.raw = b''
        if isinstance(self.caller, WebSocketCaller):
            receive = self.caller.socket.recv

            def recv() -> Any:
                received = receive()
                self.raw = received if isinstance(received, bytes) else received.encode()
                return received

            self.caller.socket.recv = recv
        else:
            self.caller.session.hooks['response'].append(self._keep)

    def _keep(self, response: Any, **_: Any) -> None:
        self.raw = response.content


@pytest.fixture(params=TRANSPORTS)
def reader(request: pytest.FixtureRequest, server: ServerProcess, api: Any) -> Any:
    listener = Listener(request.param, server, api.identity)
    yield listener
    listener.caller.close()


def is_binary(transport: Any) -> bool:
    return getattr(transport, '_binary', False)


@pytest.mark.parametrize('metadata', [{}, ENCRYPTED], ids=['plain', 'encrypted'])
@pytest.mark.parametrize('read', READS)
def test_a_body_is_read_as_it_was_posted(
    api: Any, reader: Listener, read: str, metadata: dict[str, Any]
) -> None:
    """To the byte by who reads in the same encoding, and with the same value in the other."""
    binary = is_binary(api)
    api.call('queue_create', queue_name='q', metadata=metadata)
    body = SPELLED_IN_MSGPACK if binary else SPELLED
    assert send_post(api, body)[0] == 201
    found = bodies_of(READS[read](reader.caller))
    assert found == [VALUE_IN_MSGPACK if binary else json.loads(SPELLED)]
    if is_binary(reader.caller) is binary:
        assert (body if binary else body.encode()) in reader.raw


def test_of_a_key_that_is_there_twice_the_last_one_counts(api: Any, reader: Listener) -> None:
    body = b'\x82\xa1a\x01\xa1a\x02' if is_binary(api) else '{"a": 1, "a": 2}'
    assert send_post(api, body)[0] == 201
    assert bodies_of(READS['list'](reader.caller)) == [{'a': 2}]


def test_a_post_with_members_that_are_not_known_is_stored_as_it_is(
    api: Any, reader: Listener
) -> None:
    messages = [{'body': {'a': 1}, 'ttl': 300, 'colour': 'red'}]
    assert api.call('message_post', queue_name='q', messages=messages, more=[1]).status == 201
    assert bodies_of(READS['list'](reader.caller)) == [{'a': 1}]


@pytest.mark.parametrize('transport', ['ws-json', 'ws-msgpack'])
@pytest.mark.parametrize('more', [{}, {'colour': 'red'}], ids=['known', 'unknown'])
def test_the_default_envelope_echoes_what_was_posted(
    server: ServerProcess, transport: str, more: dict[str, Any]
) -> None:
    api = connect(transport, server.url, server.websocket_url)
    messages = [{'body': {'a': [1]}, 'ttl': 300}, {'body': None, 'delay': None, **more}]
    body = {'queue_name': 'q', 'messages': messages, 'post_id': 'p'}
    headers = api.identity.headers()
    frame = {'action': 'message_post', 'headers': headers, 'body': body}
    encode = msgpack.packb if is_binary(api) else lambda document: json.dumps(document).encode()
    answer = api.exchange(encode(frame))
    assert answer['request'] == {**frame, 'api': 'v2'}
    assert answer['headers']['status'] == 201
    api.close()


def test_both_encodings_mix_on_one_page(server: ServerProcess, api: Any) -> None:
    callers = [connect(one, server.url, server.websocket_url) for one in TRANSPORTS]
    expected = []
    for number, caller in enumerate(callers):
        caller.identity = api.identity
        post(caller, {'n': number, 'x': 'snö ☃'}, None, queue_name='q')
        expected += [{'n': number, 'x': 'snö ☃'}, None]
        caller.close()
    answer = api.call('message_list', queue_name='q', echo=True, limit=20)
    assert bodies_of(answer) == expected
    assert bodies_of(api.call('claim_create', queue_name='q', limit=20)) == expected
