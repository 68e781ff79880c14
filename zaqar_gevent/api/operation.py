"""Declares operations, and keeps the registry of all of them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar, get_type_hints

import msgspec

Function = TypeVar('Function', bound=Callable[..., Any])

_ROUTE = re.compile(r'(?P<methods>[A-Z|]+) (?P<path>/[^?]*?)(\{\?(?P<query>[\w,]+)\})?$')
_VARIABLE = re.compile(r'\{(\w+)\}')


class Kind(enum.StrEnum):
    """A holder of messages: a queue, or a topic, which is a queue under another name."""

    QUEUE = 'queue'
    TOPIC = 'topic'


class Request(msgspec.Struct, kw_only=True):
    """Base of what an operation is asked; unknown members of a document are ignored."""

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the named members that have a value."""
        values = ((name, getattr(self, name)) for name in names)
        return {name: value for name, value in values if value is not None}


class Reply(msgspec.Struct):
    """A status and a body, for operations with more than one way to succeed.

    PERF: a named tuple takes four times as long to make.
    """

    status: int
    body: Any


class Route(NamedTuple):
    """Where REST offers an operation: methods, path template, names of the query parameters."""

    methods: tuple[str, ...]
    path: str
    query: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Route:
        """Read `'GET|HEAD /v2/queues/{queue_name}{?limit,marker}'` (RFC 6570, level 3)."""
        match = _ROUTE.match(text)
        if match is None:
            raise ValueError(f'not a route: {text!r}')
        query = match['query']
        return cls(
            methods=tuple(match['methods'].split('|')),
            path=match['path'],
            query=tuple(query.split(',')) if query else (),
        )

    @property
    def template(self) -> str:
        """The URI template, RFC 6570."""
        return self.path + ('{?' + ','.join(self.query) + '}' if self.query else '')

    def fill(self, arguments: Mapping[str, Any]) -> str:
        """The path with its variables replaced; a value never adds a segment."""
        return _VARIABLE.sub(
            lambda match: urllib.parse.quote(str(arguments.get(match[1], '')), safe=''), self.path
        )


class Repeat(NamedTuple):
    """When a client may ask again without knowing whether the first request was performed.

    Once must be as good as twice. Without a condition it always is; every condition given must
    hold.

    given: this argument must be there.
    absent: this argument must not be there.
    changes: each change of a JSON patch must be one of these operations.
    """

    given: str | None = None
    absent: str | None = None
    changes: tuple[str, ...] = ()


_IDEMPOTENT_METHODS = frozenset({'GET', 'HEAD', 'PUT', 'DELETE'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing a client can ask for, over any transport.

    name: the WebSocket action, unique.
    route: method, path and query parameters in REST; every other member of `request` is read from
        the body.
    request: the structure its arguments are decoded into; `function` gets it and the context.
    policy: the oslo.policy rule that must allow it; None for what is public.
    success: the statuses of success, the usual one first.
    relation: its link relation in the home document.
    payload: the member of `request` that is the whole REST body, where the body is one value.
    needs_body: whether a REST request must have a body, be it an empty object.
    body_members: the members that a REST body must have, where there is one.
    aliases: query parameters whose name differs from the member they fill.
    filters: the member that gets all query parameters not named in the route.
    media_types: what Content-Type a REST body must have, where it matters.
    admin: offered in admin mode only.
    pooling: offered only where the store is pooled.
    anonymous: needs neither a project nor a client id.
    any_version: is performed for clients that ask for a version that is not served, too.
    repeat: when it may be repeated safely; None for never.
    kind: whether it works on queues or on topics.
    container: the argument that names the queue or topic.
    """

    name: str
    route: Route
    request: type[Request]
    function: Callable[..., Any]
    policy: str | None
    success: tuple[int, ...]
    relation: str | None
    payload: str | None
    needs_body: bool
    body_members: tuple[str, ...]
    aliases: dict[str, str]
    filters: str | None
    media_types: tuple[str, ...]
    admin: bool
    pooling: bool
    anonymous: bool
    any_version: bool
    repeat: Repeat | None
    kind: Kind = Kind.QUEUE
    container: str = 'queue_name'

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        line = (inspect.getdoc(self.function) or '').split('\n', 1)[0]
        return line.replace(Kind.QUEUE.value, self.kind.value)

    @functools.cached_property
    def waits(self) -> bool:
        """Whether it may wait for messages, by `waiting.wait_for`."""
        return 'wait' in self.request.__struct_fields__

    @functools.cached_property
    def reads(self) -> bool:
        """Whether it changes nothing, so that it may be broken off."""
        return bool(self.route.methods) and set(self.route.methods) <= {'GET', 'HEAD'}

    @functools.cached_property
    def is_long(self) -> bool:
        """Whether its answer may be long: a page, or several messages."""
        members = set(self.request.__struct_fields__)
        reads_claim = 'GET' in self.route.methods and 'claim_id' in members
        return reads_claim or not members.isdisjoint(('limit', 'pop', 'message_ids'))

    def on_topics(self, name: str) -> Operation:
        """The same operation on topics, under another name."""
        return dataclasses.replace(
            self,
            name=name,
            kind=Kind.TOPIC,
            container='topic_name',
            route=self.route._replace(
                path=self.route.path.replace('/queues', '/topics').replace(
                    '{queue_name}', '{topic_name}'
                )
            ),
            request=_on_topics(self.request),
            policy=self.policy and self.policy.replace('queues:', 'topics:'),
            relation=self.relation and _topic_relation(self.relation),
        )

    def member(self, parameter: str) -> str:
        """The member of `request` that the query parameter fills."""
        return self.aliases.get(parameter, parameter)


class Registry:
    """All operations, by name."""

    def __init__(self) -> None:
        self._operations: dict[str, Operation] = {}

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def __len__(self) -> int:
        return len(self._operations)

    def add(self, operation: Operation) -> None:
        """Register `operation`; a second one of the same name is a programming error."""
        if operation.name in self._operations:
            raise ValueError(f'operation {operation.name!r} is declared twice')
        self._operations[operation.name] = operation

    def offered(self, *, admin: bool, pooling: bool) -> dict[str, Operation]:
        """The operations a server offers, by name; `admin` and `pooling` say what it is for."""
        return {
            name: operation
            for name, operation in self._operations.items()
            if (admin or not operation.admin) and (pooling or not operation.pooling)
        }


REGISTRY = Registry()

CONNECTION = Registry()
"""Operations on a WebSocket connection itself, which have no route in REST."""


def operation(
    name: str,
    *,
    rest: str | None,
    policy: str | None,
    success: int | tuple[int, ...] = 200,
    relation: str | None = None,
    payload: str | None = None,
    needs_body: bool = False,
    body_members: tuple[str, ...] = (),
    aliases: dict[str, str] | None = None,
    filters: str | None = None,
    media_types: tuple[str, ...] = (),
    admin: bool = False,
    pooling: bool = False,
    anonymous: bool = False,
    any_version: bool = False,
    repeat: Repeat | bool | None = None,
    topic: str | None = None,
) -> Callable[[Function], Function]:
    """Declare the decorated function `(context, request: SomeRequest) -> body` an operation.

    The members of `Operation` say what each argument means; the request's type is read from the
    function's annotations. One without a route in REST goes to `CONNECTION`. `topic` names its
    twin, the same operation on topics. Without `repeat`, the HTTP method decides: GET, HEAD, PUT
    and DELETE may be repeated, POST and PATCH may not, nor may what has no route.
    """

    def register(function: Function) -> Function:
        route = Route.parse(rest) if rest else Route((), '', ())
        declared = Operation(
            name=name,
            route=route,
            request=get_type_hints(function)['request'],
            function=function,
            policy=policy,
            success=(success,) if isinstance(success, int) else success,
            relation=relation,
            payload=payload,
            needs_body=needs_body,
            body_members=body_members,
            aliases=aliases or {},
            filters=filters,
            media_types=media_types,
            admin=admin,
            pooling=pooling,
            anonymous=anonymous,
            any_version=any_version,
            repeat=_when_to_repeat(repeat, route),
        )
        (REGISTRY if rest else CONNECTION).add(declared)
        if topic is not None:
            REGISTRY.add(declared.on_topics(topic))
        return function

    return register


def _when_to_repeat(declared: Repeat | bool | None, route: Route) -> Repeat | None:
    if declared is None:
        declared = bool(route.methods) and _IDEMPOTENT_METHODS.issuperset(route.methods)
    if isinstance(declared, bool):
        return Repeat() if declared else None
    return declared


@functools.cache
def _on_topics(request: type[Request]) -> type[Request]:
    """The same request, in which the queue's name is called `topic_name`."""
    if 'queue_name' not in request.__struct_fields__:
        return request
    twin: type[Any] = msgspec.defstruct(
        f'{request.__name__}OnTopic',
        [('queue_name', str, msgspec.field(name='topic_name'))],
        bases=(request,),
        kw_only=True,
    )
    return twin


def _topic_relation(relation: str) -> str:
    name = relation.removeprefix('rel/')
    return f'rel/{name.replace("queue", "topic")}' if 'queue' in name else f'rel/topic_{name}'
