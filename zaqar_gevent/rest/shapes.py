"""What REST makes of an operation's result: hrefs, links, the Location header.

The body of any other result goes out as it is, and 204 goes without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon

from zaqar_gevent.api import errors
from zaqar_gevent.api.operation import Reply

Shape = Callable[[falcon.Request, falcon.Response, Reply], Any]


def _message(message: dict[str, Any], messages_path: str) -> dict[str, Any]:
    href = f'{messages_path}/{message["id"]}'
    claim_id = message.pop('claim_id')
    if claim_id:
        href += falcon.to_query_str({'claim_id': claim_id})
    return {'id': message['id'], 'href': href, **message}


def _next_page(req: falcon.Request, marker: str) -> list[dict[str, str]]:
    query = falcon.to_query_str({**req.params, 'marker': marker})
    return [{'rel': 'next', 'href': req.path + query}]


def _messages(messages: list[dict[str, Any]], messages_path: str) -> list[dict[str, Any]]:
    return [_message(message, messages_path) for message in messages]


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


def _created_queue(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    resp.location = req.path


def _listed_queues(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    queues = [{**queue, 'href': f'{req.path}/{queue["name"]}'} for queue in reply.body['queues']]
    body = {'queues': queues, 'links': []}
    if queues:
        body['links'] = _next_page(req, reply.body['marker'])
    if 'count' in reply.body:
        body['count'] = reply.body['count']
    return body


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


SHAPES: dict[str, Shape] = {
    'claim_create': _created_claim,
    'claim_get': _claim,
    'get_home_doc': _home_document,
    'message_get': _one_message,
    'message_get_many': _chosen_messages,
    'message_list': _listed_messages,
    'message_post': _posted_messages,
    'queue_create': _created_queue,
    'queue_get_stats': _stats,
    'queue_list': _listed_queues,
}


def as_is(req: falcon.Request, resp: falcon.Response, reply: Reply) -> Any:
    """The result itself, or nothing with 204."""
    return None if reply.status == 204 else reply.body
