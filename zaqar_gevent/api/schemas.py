"""JSON Schemas of operations' requests and answers, with examples.

The documents that describe a transport are put together from these; see `rest/openapi.py` and
`websocket/asyncapi.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict, get_type_hints

import msgspec

from zaqar_gevent.api import claims, messages, queues
from zaqar_gevent.api.operation import Kind, Operation, Reply, Request

Schema = dict[str, Any]

_PLACE = '#/components/schemas/'

# The arguments in the examples of the documents.
EXAMPLES: dict[str, Any] = {
    'changes': [{'op': 'add', 'path': '/metadata/team', 'value': 'billing'}],
    'claim_id': '51db7067821e727dc24df754',
    'confirmed': True,
    'consumer_id': 'a8249c6505c3f74a',
    'credit': 10,
    'entries': [{'message_id': '50b68a50d6f5b8c8a7c62b01', 'claim_id': '51db7067821e727dc24df754'}],
    'expires': '2100-01-01T00:00:00',
    'flavor_name': 'fast',
    'grace': 60,
    'limit': 10,
    'message_id': '50b68a50d6f5b8c8a7c62b01',
    'message_ids': ['50b68a50d6f5b8c8a7c62b01', '50b68a50d6f5b8c8a7c62b02'],
    'messages': [{'body': {'sku': 42}, 'ttl': 300}],
    'metadata': {'team': 'sales', '_default_message_ttl': 3600},
    'methods': ['GET'],
    'paths': ['messages'],
    'pool_list': ['east'],
    'pool_name': 'east',
    'post_id': '0193b1a2-6c1e-7c55-9d0e-6f2f3c1f7a10',
    'queue_name': 'orders',
    'redrive_id': '0000000000000007',
    'resource_types': ['messages'],
    'subscriber': 'http://127.0.0.1:9000/orders',
    'subscription_id': '57692aa63990b48c644bb7e5',
    'topic_name': 'prices',
    'ttl': 300,
    'uri': 'sqlite:///var/lib/zaqar-gevent/east.sqlite',
    'weight': 100,
}

_CONTAINER_NAME: Schema = {
    'type': 'string',
    'minLength': 1,
    'maxLength': 64,
    'pattern': r'^[a-zA-Z0-9_\-.]+$',
}
_ID: Schema = {'type': 'string', 'minLength': 1}

# Constraints beyond a member's type, for all operations.
_NARROWED: dict[str, Schema] = {
    'queue_name': _CONTAINER_NAME,
    'topic_name': _CONTAINER_NAME,
    'message_id': _ID,
    'claim_id': _ID,
    'redrive_id': _ID,
    'subscription_id': _ID,
}

CLIENT_ID: Schema = {'type': 'string', 'format': 'uuid'}
PROJECT_ID: Schema = {'type': 'string', 'minLength': 1, 'maxLength': 256}
CLIENT_ID_EXAMPLE = '3381af92-2b9e-11e3-b191-71861300734c'
PROJECT_ID_EXAMPLE = 'demo'


class PoppedMessages(TypedDict):
    """Messages taken from the front of a queue, as the store had them."""

    messages: list[dict[str, Any]]


# The results of the operations that have more than one way to succeed, by status.
_REPLIES: dict[Callable[..., Any], dict[int, Any]] = {
    claims.create_claim: {201: claims.CreatedClaim, 204: claims.CreatedClaim},
    messages.delete_messages: {204: dict[str, Any], 200: PoppedMessages},
    queues.create_queue: {201: str, 204: str},
}


def results(operation: Operation) -> dict[int, Any]:
    """The types of the results of `operation`, by status of success."""
    declared = get_type_hints(operation.function)['return']
    if declared is Reply:
        return _REPLIES[operation.function]
    return dict.fromkeys(operation.success, declared)


def description_of(operation: Operation) -> str:
    """All that the function's docstring says."""
    text = inspect.getdoc(operation.function) or ''
    return text.replace(Kind.QUEUE.value, operation.kind.value)


class Member(msgspec.Struct, frozen=True):
    """One argument: its name, its JSON Schema, whether it must be given."""

    name: str
    schema: Schema
    required: bool


class Schemas:
    """The JSON Schemas of types for one document, which refer to its components."""

    def __init__(self, types: Iterable[Any]) -> None:
        known = {_identity(kind): kind for kind in types}
        found, self._components = msgspec.json.schema_components(
            known.values(), ref_template=_PLACE + '{name}'
        )
        for component in self._components.values():
            if 'description' in component:
                # As it stands in the source, which is as it is indented.
                component['description'] = inspect.cleandoc(component['description'])
        self._of: dict[Any, Schema] = dict(zip(known, found, strict=True))

    def of(self, kind: Any) -> Schema:
        """The schema of a type given at construction."""
        return self._of[_identity(kind)]

    def members(self, request: type[Request]) -> dict[str, Member]:
        """The arguments of a request, by the name that clients use."""
        component = self._components[_name_of(self.of(request))]
        required = component.get('required', ())
        return {
            name: Member(name, schema | _NARROWED.get(name, {}), name in required)
            for name, schema in component['properties'].items()
        }

    def components_of(self, document: Any) -> dict[str, Schema]:
        """The components that `document` refers to, and those they refer to."""
        wanted = list(references(document))
        found: dict[str, Schema] = {}
        while wanted:
            name = wanted.pop()
            if name not in found and name in self._components:
                found[name] = self._components[name]
                wanted.extend(references(found[name]))
        return dict(sorted(found.items()))


def _identity(kind: Any) -> Any:
    """A key for a type: operations on topics may have equal requests of the same name."""
    return (kind.__module__, kind.__qualname__) if isinstance(kind, type) else kind


def references(document: Any) -> Iterator[str]:
    """The names of the component schemas that `document` refers to."""
    if isinstance(document, dict):
        target = document.get('$ref')
        if isinstance(target, str) and target.startswith(_PLACE):
            yield _name_of(document)
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list):
        for value in document:
            yield from references(value)


def object_of(members: Iterable[Member], *, closed: bool = False) -> Schema:
    """The schema of an object with these members, and no others where it is `closed`."""
    chosen = list(members)
    schema: Schema = {'type': 'object', 'properties': {m.name: m.schema for m in chosen}}
    required = [member.name for member in chosen if member.required]
    if required:
        schema['required'] = required
    if closed:
        schema['additionalProperties'] = False
    return schema


def example_of(members: Iterable[Member]) -> dict[str, Any]:
    """An example of an object with these members."""
    return {member.name: EXAMPLES[member.name] for member in members if member.name in EXAMPLES}


def is_closed(request: type[Request]) -> bool:
    """Whether members that `request` does not have are refused."""
    return bool(request.__struct_config__.forbid_unknown_fields)


def without_null(schema: Schema) -> Schema:
    """The schema without null among what it allows, for places that cannot say null."""
    choices = [choice for choice in schema.get('anyOf', ()) if choice != {'type': 'null'}]
    if not choices:
        return schema
    kept = {name: value for name, value in schema.items() if name != 'anyOf'}
    if kept.get('default', ...) is None:
        del kept['default']
    return kept | (choices[0] if len(choices) == 1 else {'anyOf': choices})


def _name_of(reference: Schema) -> str:
    name: str = reference['$ref'].removeprefix(_PLACE)
    return name
