"""What REST makes of an operation's result: hrefs, links, the Location header.

The body of any other result goes out as it is, and 204 goes without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon

from zaqar_gevent.api import (
    claims,
    errors,
    flavors,
    messages,
    pools,
    queues,
    service,
    subscriptions,
)
from zaqar_gevent.api.operation import Reply

Shape = Callable[[falcon.Request, falcon.Response, Reply], Any]


def _message(message: dict[str, Any], messages_path: str) -> dict[str, Any]:
    href = f'{messages_path}/{message["id"]}'
    claim_id = message.pop('claim_id')
    if claim_id:
        href += falcon.to_query_str({'claim_id': claim_id})
    return {'id': message['id'], 'href': href, **message}


def _next_page(req: falcon.Request, marker: str) -> list[dict[str, str]]:
    query = falcon.to_query_str({**req.context.query, 'marker': marker})
    return [{'rel': 'next', 'href': req.path + query}]


def _messages(found: list[dict[str, Any]], messages_path: str) -> list[dict[str, Any]]:
    return [_message(message, messages_path) for message in found]


def _parent(path: str, levels: int = 1) -> str:
    return path.rsplit('/', levels)[0]


def _listed_messages(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    found = reply.body['messages']
    links = _next_page(req, reply.body['marker']) if found else []
    return {'messages': _messages(found, req.path), 'links': links}


def _chosen_messages(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    if not reply.body['messages']:
        raise errors.NotFound('None of the messages asked for exists in this queue.')
    return {'messages': _messages(reply.body['messages'], req.path)}


def _one_message(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    return _message(reply.body['messages'], _parent(req.path))


def _posted_messages(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    message_ids = reply.body['message_ids']
    resp.location = f'{req.path}?ids={",".join(message_ids)}'
    return {'resources': [f'{req.path}/{message_id}' for message_id in message_ids]}


def _created_claim(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    if reply.status == 204:
        return None
    resp.location = f'{req.path}/{reply.body["claim_id"]}'
    return {'messages': _messages(reply.body['messages'], _parent(req.path) + '/messages')}


def _claim(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    messages_path = _parent(req.path, 2) + '/messages'
    return {
        **reply.body,
        'messages': _messages(reply.body['messages'], messages_path),
        'href': req.path,
    }


def _listed_queues(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    kind = 'topics' if 'topics' in reply.body else 'queues'
    found = [{**queue, 'href': f'{req.path}/{queue["name"]}'} for queue in reply.body[kind]]
    links = _next_page(req, reply.body['marker']) if found else []
    count = {'count': reply.body['count']} if 'count' in reply.body else {}
    return {kind: found, 'links': links, **count}


def _listed_subscriptions(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    found = reply.body['subscriptions']
    return {
        'subscriptions': found,
        'links': _next_page(req, reply.body['marker']) if found else [],
    }


def _created_subscription(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    resp.location = req.path
    return {'subscription_id': reply.body['subscription_id']}


def _located(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    """Nothing but the address of what was changed."""
    resp.location = req.path


def _listed(kind: str) -> Shape:
    """The shape of a page of named resources, each with its own address."""

    def shape(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
        found = [{**entry, 'href': f'{req.path}/{entry["name"]}'} for entry in reply.body[kind]]
        return {kind: found, 'links': _next_page(req, reply.body['marker']) if found else []}

    return shape


def _addressed(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    return {**reply.body, 'href': req.path}


def _stats(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    stats = dict(reply.body['messages'])
    for name in ('oldest', 'newest'):
        if name in stats:
            message = dict(stats[name])
            message_id = message.pop('id')
            stats[name] = {**message, 'href': f'{_parent(req.path)}/messages/{message_id}'}
    return {'messages': stats}


def _home_document(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    resp.content_type = 'application/json-home'
    resp.cache_control = ['max-age=86400']
    return reply.body


SHAPES: dict[Callable[..., Any], Shape] = {
    claims.create_claim: _created_claim,
    claims.get_claim: _claim,
    flavors.create_flavor: _located,
    flavors.get_flavor: _addressed,
    flavors.list_flavors: _listed('flavors'),
    flavors.update_flavor: _addressed,
    messages.get_message: _one_message,
    messages.get_messages: _chosen_messages,
    messages.list_messages: _listed_messages,
    messages.post_messages: _posted_messages,
    pools.create_pool: _located,
    pools.get_pool: _addressed,
    pools.list_pools: _listed('pools'),
    pools.update_pool: _addressed,
    queues.create_queue: _located,
    queues.get_stats: _stats,
    queues.list_queues: _listed_queues,
    service.get_home_document: _home_document,
    subscriptions.confirm_subscription: _located,
    subscriptions.create_subscription: _created_subscription,
    subscriptions.list_subscriptions: _listed_subscriptions,
    subscriptions.update_subscription: _located,
}


def as_is(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    """The result itself, or nothing with 204."""
    return None if reply.status == 204 else reply.body
