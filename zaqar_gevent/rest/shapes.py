"""REST's form of an operation's result: hrefs, links, the Location header.

The body of any other result goes out as it is, and 204 goes without one. What a shape is
annotated to return is what the OpenAPI document says of the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypedDict, cast

import falcon
import msgspec

from zaqar_gevent.api import (
    claims,
    description,
    errors,
    flavors,
    messages,
    microversions,
    pools,
    queues,
    redrives,
    service,
    subscriptions,
)
from zaqar_gevent.api.operation import Reply
from zaqar_gevent.proxies import PREFIX
from zaqar_gevent.rest.request import Request
from zaqar_gevent.storage.interface import AnsweredMessage

HOME_MEDIA_TYPE = 'application/json-home'

MAX_LOCATION = 2048
"""The longest Location of a post, in characters. Proxies and clients refuse long headers, when the
messages have been stored already; the body names the same messages."""

Shape = Callable[[Request, falcon.Response, Reply], Any]


class Link(TypedDict):
    rel: str
    href: str


class LinkedMessage(TypedDict):
    """`href` names the claim that holds the message, if one does; `ttl` and `age` in seconds.

    `attributes`, `group`, `claim_count` and `dead_letter` are shown from version 2.1 of the API on.
    """

    id: str
    href: str
    ttl: int
    age: int
    body: Any
    checksum: NotRequired[str]
    attributes: NotRequired[dict[str, str]]
    group: NotRequired[str]
    claim_count: NotRequired[int]
    dead_letter: NotRequired[messages.DeadLetterFacts]


class LinkedMessages(TypedDict):
    messages: list[LinkedMessage]


class LinkedMessagePage(LinkedMessages):
    """`links` has the next page, unless this one is empty."""

    links: list[Link]


class LinkedClaim(LinkedMessages):
    """`ttl` and `age` in seconds."""

    ttl: int
    age: int
    href: str


class Addresses(TypedDict):
    """Where the messages posted are, in order."""

    resources: list[str]


class LinkedQueue(queues.ListedQueue):
    href: str


class LinkedQueuePage(TypedDict):
    """`queues`, or `topics` where those were asked for."""

    queues: NotRequired[list[LinkedQueue]]
    topics: NotRequired[list[LinkedQueue]]
    links: list[Link]
    count: NotRequired[int]


class LinkedSubscriptionPage(TypedDict):
    subscriptions: list[subscriptions.Subscription]
    links: list[Link]


class LinkedRedrivePage(TypedDict):
    redrives: list[redrives.Redrive]
    links: list[Link]


class SubscriptionId(TypedDict):
    subscription_id: str


class LinkedPool(pools.Pool):
    href: str


class LinkedPoolPage(TypedDict):
    pools: list[LinkedPool]
    links: list[Link]


class LinkedFlavor(flavors.Flavor):
    href: str


class LinkedFlavorPage(TypedDict):
    flavors: list[LinkedFlavor]
    links: list[Link]


class EndOfQueue(TypedDict):
    """The oldest or the newest message; `age` in seconds."""

    href: str
    age: int
    created: str


class LinkedMessageStats(TypedDict, total=False):
    claimed: int
    free: int
    total: int
    oldest: EndOfQueue
    newest: EndOfQueue


class LinkedStats(TypedDict):
    messages: LinkedMessageStats


class Home(TypedDict):
    """A home document, draft-nottingham-json-home-03."""

    resources: dict[str, dict[str, Any]]


def _path(req: Request) -> str:
    """The path as the client knows it, below where the API is mounted."""
    path: str = req.env.get(PREFIX, '') + req.path
    return path


def _prefix(req: Request) -> str:
    prefix: str = req.env.get(PREFIX, '')
    return prefix


def _message(message: dict[str, Any], messages_path: str) -> LinkedMessage:
    return _messages([message], messages_path)[0]


def _next_page(req: Request, marker: str) -> list[Link]:
    query = falcon.to_query_str({**req.query, 'marker': marker})
    return [{'rel': 'next', 'href': _path(req) + query}]


def _messages(
    found: list[dict[str, Any]] | list[AnsweredMessage], messages_path: str
) -> list[LinkedMessage]:
    linked = []
    for one in found:
        message = one if isinstance(one, dict) else _members_of(one)
        message_id, claim_id = message['id'], message.pop('claim_id')
        href = f'{messages_path}/{message_id}'
        if claim_id:
            href += falcon.to_query_str({'claim_id': claim_id})
        linked.append({'id': message_id, 'href': href, **message})
    return cast(list[LinkedMessage], linked)


def _members_of(message: AnsweredMessage) -> dict[str, Any]:
    members = {
        'id': message.id,
        'claim_id': message.claim_id,
        'ttl': message.ttl,
        'age': message.age,
        'body': message.body,
    }
    if message.claim_count is not msgspec.UNSET:
        members['claim_count'] = message.claim_count
    return members


def _parent(path: str, levels: int = 1) -> str:
    return path.rsplit('/', levels)[0]


def _addressed(req: Request, reply: Reply, kind: str) -> list[Any]:
    """The named resources of a page, each with its own address."""
    return [{**entry, 'href': f'{_path(req)}/{entry["name"]}'} for entry in reply.body[kind]]


def _links(req: Request, reply: Reply, kind: str) -> list[Link]:
    return _next_page(req, reply.body['marker']) if reply.body[kind] else []


def _listed_messages(req: Request, resp: falcon.Response, reply: Reply) -> LinkedMessagePage:
    links = _next_page(req, reply.body['marker']) if 'marker' in reply.body else []
    return {'messages': _messages(reply.body['messages'], _path(req)), 'links': links}


def _chosen_messages(req: Request, resp: falcon.Response, reply: Reply) -> LinkedMessages:
    if not reply.body['messages']:
        raise errors.NotFound('None of the messages asked for exists in this queue.')
    return {'messages': _messages(reply.body['messages'], _path(req))}


def _one_message(req: Request, resp: falcon.Response, reply: Reply) -> LinkedMessage:
    return _message(reply.body['messages'], _parent(_path(req)))


def _posted_messages(req: Request, resp: falcon.Response, reply: Reply) -> Addresses:
    path, message_ids = _path(req), reply.body['message_ids']
    location = f'{path}?ids={",".join(message_ids)}'
    if len(location) <= MAX_LOCATION:
        resp.location = location
    return {'resources': [f'{path}/{message_id}' for message_id in message_ids]}


def _created_claim(req: Request, resp: falcon.Response, reply: Reply) -> LinkedMessages | None:
    if reply.status == 204:
        return None
    resp.location = f'{_path(req)}/{reply.body["claim_id"]}'
    return {'messages': _messages(reply.body['messages'], _parent(_path(req)) + '/messages')}


def _claim(req: Request, resp: falcon.Response, reply: Reply) -> LinkedClaim:
    messages_path = _parent(_path(req), 2) + '/messages'
    return {
        'ttl': reply.body['ttl'],
        'age': reply.body['age'],
        'messages': _messages(reply.body['messages'], messages_path),
        'href': _path(req),
    }


def _listed_queues(req: Request, resp: falcon.Response, reply: Reply) -> LinkedQueuePage:
    kind: Literal['queues', 'topics'] = 'topics' if 'topics' in reply.body else 'queues'
    page: LinkedQueuePage = {'links': _links(req, reply, kind)}
    page[kind] = _addressed(req, reply, kind)
    if 'count' in reply.body:
        page['count'] = reply.body['count']
    return page


def _listed_subscriptions(
    req: Request, resp: falcon.Response, reply: Reply
) -> LinkedSubscriptionPage:
    links = _links(req, reply, 'subscriptions')
    return {'subscriptions': reply.body['subscriptions'], 'links': links}


def _created_subscription(req: Request, resp: falcon.Response, reply: Reply) -> SubscriptionId:
    resp.location = _path(req)
    return {'subscription_id': reply.body['subscription_id']}


def _created_redrive(req: Request, resp: falcon.Response, reply: Reply) -> redrives.CreatedRedrive:
    created: redrives.CreatedRedrive = reply.body
    resp.location = f'{_path(req)}/{created["redrive_id"]}'
    return created


def _listed_redrives(req: Request, resp: falcon.Response, reply: Reply) -> LinkedRedrivePage:
    return {'redrives': reply.body['redrives'], 'links': _links(req, reply, 'redrives')}


def _located(req: Request, resp: falcon.Response, reply: Reply) -> None:
    """Nothing but the address of what was changed."""
    resp.location = _path(req)


def _listed_pools(req: Request, resp: falcon.Response, reply: Reply) -> LinkedPoolPage:
    return {'pools': _addressed(req, reply, 'pools'), 'links': _links(req, reply, 'pools')}


def _listed_flavors(req: Request, resp: falcon.Response, reply: Reply) -> LinkedFlavorPage:
    return {'flavors': _addressed(req, reply, 'flavors'), 'links': _links(req, reply, 'flavors')}


def _one_pool(req: Request, resp: falcon.Response, reply: Reply) -> LinkedPool:
    return cast(LinkedPool, {**reply.body, 'href': _path(req)})


def _one_flavor(req: Request, resp: falcon.Response, reply: Reply) -> LinkedFlavor:
    return cast(LinkedFlavor, {**reply.body, 'href': _path(req)})


def _stats(req: Request, resp: falcon.Response, reply: Reply) -> LinkedStats:
    stats = dict(reply.body['messages'])
    for name in ('oldest', 'newest'):
        if name in stats:
            message = dict(stats[name])
            message_id = message.pop('id')
            stats[name] = {**message, 'href': f'{_parent(_path(req))}/messages/{message_id}'}
    return {'messages': cast(LinkedMessageStats, stats)}


def _home_document(req: Request, resp: falcon.Response, reply: Reply) -> Home:
    _depend_on_version(resp)
    resp.content_type = HOME_MEDIA_TYPE
    resp.cache_control = ['max-age=86400']
    resources: dict[str, dict[str, Any]] = reply.body['resources']
    for resource in resources.values():
        for member in ('href', 'href-template'):
            if member in resource:
                resource[member] = _prefix(req) + resource[member]
    return {'resources': resources}


def _depend_on_version(resp: falcon.Response) -> None:
    """Tell caches that the answer depends on the version asked for, even if none was."""
    resp.set_header('Vary', microversions.HEADER)


def _versions(req: Request, resp: falcon.Response, reply: Reply) -> dict[str, Any]:
    _depend_on_version(resp)
    versions = [
        {**version, 'links': [_below(req, link) for link in version['links']]}
        for version in reply.body['versions']
    ]
    return {'versions': versions}


def _below(req: Request, link: Link) -> Link:
    return {**link, 'href': _prefix(req) + link['href']}


def _openapi(req: Request, resp: falcon.Response, reply: Reply) -> dict[str, Any]:
    """The document, whose paths are relative to where the API is mounted."""
    return {**reply.body, 'servers': [{'url': _prefix(req) or '/'}]}


SHAPES: dict[Callable[..., Any], Shape] = {
    claims.create_claim: _created_claim,
    description.get_openapi: _openapi,
    claims.get_claim: _claim,
    flavors.create_flavor: _located,
    flavors.get_flavor: _one_flavor,
    flavors.list_flavors: _listed_flavors,
    flavors.update_flavor: _one_flavor,
    messages.get_message: _one_message,
    messages.get_messages: _chosen_messages,
    messages.list_messages: _listed_messages,
    messages.post_messages: _posted_messages,
    pools.create_pool: _located,
    pools.get_pool: _one_pool,
    pools.list_pools: _listed_pools,
    pools.update_pool: _one_pool,
    queues.create_queue: _located,
    queues.get_stats: _stats,
    queues.list_queues: _listed_queues,
    redrives.create_redrive: _created_redrive,
    redrives.list_redrives: _listed_redrives,
    service.get_home_document: _home_document,
    service.get_versions: _versions,
    subscriptions.confirm_subscription: _located,
    subscriptions.create_subscription: _created_subscription,
    subscriptions.list_subscriptions: _listed_subscriptions,
    subscriptions.update_subscription: _located,
}

# The shapes that tell where what was made or changed is.
LOCATING: frozenset[Shape] = frozenset(
    {_created_claim, _created_redrive, _created_subscription, _located, _posted_messages}
)

# The shapes whose body is of another media type than JSON.
MEDIA_TYPES: dict[Shape, str] = {_home_document: HOME_MEDIA_TYPE}


def as_is(req: Request, resp: falcon.Response, reply: Reply) -> Any:
    """The result itself, or nothing with 204."""
    return None if reply.status == 204 else reply.body
