"""The AsyncAPI document is valid, and a real server answers its examples as it says."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jsonschema
import msgpack
import msgspec
import pytest

from tests.callers import CompactCaller, WebSocketCaller
from tests.server_process import ServerProcess
from zaqar_gevent.api import REGISTRY

OFFERED = REGISTRY.offered(admin=True, pooling=False)


@pytest.fixture(scope='session')
def document(server: ServerProcess) -> Any:
    """The document as the server answers it."""
    caller = WebSocketCaller(server.websocket_url, binary=False)
    answer = caller.call('get_asyncapi', headers={})
    caller.close()
    assert answer.status == 200
    return answer.body


@pytest.mark.skipif('ASYNCAPI_SPECS' not in os.environ, reason='run by tox -e contract')
def test_the_document_is_what_the_specification_wants(document: Any) -> None:
    specs = pathlib.Path(os.environ['ASYNCAPI_SPECS'])
    schema = json.loads((specs / 'schemas' / '3.0.0.json').read_text(encoding='utf-8'))
    jsonschema.Draft7Validator(schema).validate(document)


@pytest.mark.parametrize('binary', [False, True], ids=['json', 'msgpack'])
@pytest.mark.parametrize('envelope', [WebSocketCaller, CompactCaller], ids=['default', 'compact'])
@pytest.mark.parametrize('action', OFFERED)
def test_an_example_is_answered_as_described(
    server: ServerProcess,
    document: Any,
    action: str,
    envelope: type[WebSocketCaller],
    binary: bool,
) -> None:
    is_compact = envelope is CompactCaller
    messages = document['channels']['compact' if is_compact else 'websocket']['messages']
    [example] = messages[action]['examples']
    jsonschema.validate(example['payload'], whole(messages[action], document))
    caller = envelope(server.websocket_url, binary=binary)
    encode = msgpack.packb if binary else msgspec.json.encode
    answer = caller.exchange(encode(example['payload']))
    caller.close()
    status = answer['status'] if is_compact else answer['headers']['status']
    assert status < 500, answer
    described = 'error' if status >= 400 else f'{action}_answer'
    jsonschema.validate(answer, whole(messages[described], document))


@pytest.mark.parametrize('action', ['hello', 'ping'])
def test_what_is_asked_of_a_connection_is_answered_as_described(
    server: ServerProcess, document: Any, action: str
) -> None:
    messages = document['channels']['compact']['messages']
    [example] = messages[action]['examples']
    caller = CompactCaller(server.websocket_url, binary=False)
    answer = caller.exchange(msgspec.json.encode(example['payload']))
    caller.close()
    jsonschema.validate(answer, whole(messages[f'{action}_answer'], document))


def whole(message: Any, document: Any) -> Any:
    """The schema of a message, with what it refers to."""
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        **message['payload'],
        'components': document['components'],
    }
