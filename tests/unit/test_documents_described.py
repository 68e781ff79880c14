"""What the server says of itself: the OpenAPI and AsyncAPI documents and the reference."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import openapi_spec_validator
import pytest

from zaqar_gevent.api import CONNECTION, REGISTRY, schemas
from zaqar_gevent.api.operation import Operation
from zaqar_gevent.reference import write_reference
from zaqar_gevent.rest import shapes
from zaqar_gevent.rest.openapi import build_openapi
from zaqar_gevent.websocket.asyncapi import build_asyncapi

REFERENCE = pathlib.Path(__file__).parents[2] / 'docs' / 'reference.md'
KINDS_OF_SERVER = [(admin, pooling) for admin in (False, True) for pooling in (False, True)]


def as_served(document: dict[str, Any]) -> Any:
    """The document after it went over the wire."""
    return json.loads(msgspec.json.encode(document))


OPENAPI = as_served(build_openapi(REGISTRY))
COMPACT_ONLY = ('hello', 'ping', 'authenticate', 'message', 'marker', 'paused', 'ended', 'closing')
ASYNCAPI = as_served(build_asyncapi(REGISTRY, CONNECTION))


def described_methods(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document['paths'].items():
        for method, described in item.items():
            yield path, method, described


def routes_of(operation: Operation) -> set[tuple[str, str, str]]:
    return {
        (operation.name, operation.route.path, method.lower()) for method in operation.route.methods
    }


def validate(document: Any, schema: Any, example: Any) -> None:
    """Check `example` against a schema that refers to the components of `document`."""
    whole = {**schema, 'components': document['components']}
    jsonschema.Draft202012Validator(whole).validate(example)


def test_the_openapi_document_is_valid() -> None:
    openapi_spec_validator.validate(OPENAPI)


@pytest.mark.parametrize(('admin', 'pooling'), KINDS_OF_SERVER)
def test_each_server_describes_just_what_it_offers(admin: bool, pooling: bool) -> None:
    offered = REGISTRY.offered(admin=admin, pooling=pooling)
    in_rest = {
        (action, path, method)
        for path, method, described in described_methods(build_openapi(offered.values()))
        for action in described['x-actions']
    }
    assert in_rest == set().union(*map(routes_of, offered.values()))
    bound = CONNECTION.offered(admin=True, pooling=True)
    compact = {f'compact_{name}' for name in (*offered, *bound, *COMPACT_ONLY)}
    described = build_asyncapi(offered.values(), bound.values())['operations']
    assert set(described) == set(offered) | compact


def test_every_query_parameter_is_described() -> None:
    for path, _, described in described_methods(OPENAPI):
        expected = set()
        for name in described['x-actions']:
            operation = next(op for op in REGISTRY if op.name == name)
            expected.update(operation.route.query, {operation.filters} - {None})
        found = {param['name'] for param in described['parameters'] if param.get('in') == 'query'}
        assert found == expected, path


def test_every_example_of_a_rest_body_is_what_its_schema_wants() -> None:
    checked = 0
    for _, _, described in described_methods(OPENAPI):
        for media in described.get('requestBody', {}).get('content', {}).values():
            validate(OPENAPI, media['schema'], media['example'])
            checked += 1
    assert checked


def test_every_answer_in_json_is_described_as_a_document() -> None:
    answers = [
        (method, path, status, answer['content']['application/json']['schema'])
        for path, method, described in described_methods(OPENAPI)
        for status, answer in described['responses'].items()
        if 'application/json' in answer.get('content', {})
    ]
    assert len(answers) > len(OPENAPI['paths'])
    for method, path, status, schema in answers:
        whole = {**schema, 'components': OPENAPI['components']}
        accepts = jsonschema.Draft202012Validator(whole).is_valid
        assert not accepts('a text'), (method, path, status)


@pytest.mark.parametrize(('channel', 'more'), [('websocket', 0), ('compact', 3 + len(CONNECTION))])
def test_every_example_of_a_message_is_what_its_schema_wants(channel: str, more: int) -> None:
    examples = 0
    for message in ASYNCAPI['channels'][channel]['messages'].values():
        for example in message.get('examples', ()):
            validate(ASYNCAPI, message['payload'], example['payload'])
            examples += 1
    assert examples == len(REGISTRY) + more


@pytest.mark.parametrize('channel', ['websocket', 'compact'])
def test_every_example_is_decoded_by_its_operation(channel: str) -> None:
    messages = ASYNCAPI['channels'][channel]['messages']
    for operation in REGISTRY:
        [example] = messages[operation.name]['examples']
        msgspec.convert(example['payload'].get('body', {}), operation.request)


def test_every_reference_within_a_document_leads_somewhere() -> None:
    for document in (OPENAPI, ASYNCAPI):
        assert set(schemas.references(document)) == set(document['components']['schemas'])


def test_every_shape_says_what_it_makes() -> None:
    for shape in shapes.SHAPES.values():
        assert shape.__annotations__['return'] != 'Any', shape


def test_the_reference_is_current() -> None:
    written = REFERENCE.read_text(encoding='utf-8')
    assert written == write_reference([*REGISTRY, *CONNECTION]), 'run tox -e genreference'
