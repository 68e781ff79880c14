"""Messages: posted to a queue, kept for their time to live, listed, read and deleted."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from oslo_utils import timeutils
from zaqar.storage import errors as storage_errors

from zaqar_gevent import documents, long_documents
from zaqar_gevent.api import errors, waiting
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.operation import Repeat, Reply, Request, operation
from zaqar_gevent.api.push import Source
from zaqar_gevent.api.scheduling import delay_until
from zaqar_gevent.api.tracing import PARENT
from zaqar_gevent.bodies import Body, Encoding
from zaqar_gevent.message_groups import refusal_of
from zaqar_gevent.storage.errors import UndecodableValue
from zaqar_gevent.storage.features import Feature
from zaqar_gevent.storage.interface import StoredMessage, StoredPage

# PERF: members of an enumeration are looked up by its metaclass.
_JSON, _ENCRYPTED, _MSGPACK = Encoding.JSON, Encoding.ENCRYPTED, Encoding.MSGPACK

_EXTRAS = frozenset({Feature.ATTRIBUTES, Feature.GROUPS})


class NewMessage(msgspec.Struct):
    """`ttl` and `delay` in seconds; left out, they are the queue's.

    A `ttl` is at least 60, at most `[transport] max_message_ttl` (1209600 by default). A `delay` is
    0 to `[transport] max_message_delay` (900 by default). Until it is over, the message is neither
    claimed nor pushed, and only listed with `include_delayed`.

    `deliver_at`: instead of a `delay`, the time at which the message becomes visible, by RFC 3339
    or in seconds since the epoch; at most 14 days ahead by default (`[drivers:transport:gevent]
    max_schedule_ahead`). Its `ttl` and `age` count from then on.

    `attributes`: texts by name, at most 32 with 8192 bytes together by default
    (`[drivers:transport:gevent] max_attributes` and `max_attributes_size`). A name has up to 128
    letters, digits and characters of `_.-`.

    `group`: the name of the group that the message belongs to, 1 to 128 characters without control
    characters. It counts in queues with `_ordered_groups` or `_fair_groups`.
    """

    body: Any
    ttl: int | msgspec.UnsetType = msgspec.UNSET
    delay: int | None = None
    attributes: dict[str, str] | None = None
    deliver_at: float | str | None = None
    group: str | None = None


class PostMessages(Request):
    """`post_id`: made by the client, 1 to 64 characters. A post that is repeated with it is not
    made a second time, and answered as the first.
    """

    queue_name: str
    messages: list[NewMessage]
    post_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None


class ListMessages(Request):
    """`echo`: also what this client posted itself.

    `wait`: for how long to wait for a message where there is none, in seconds, at most 20. With it,
    an empty page has a marker, too.

    `include_delayed`: also messages whose delay is not over, which are listed once more when it is.
    """

    queue_name: str
    wait: float | None = None
    marker: str | None = None
    limit: int | None = None
    echo: bool = False
    include_claimed: bool = False
    include_delayed: bool = False


class GetMessage(Request):
    queue_name: str
    message_id: str


class GetMessages(Request):
    queue_name: str
    message_ids: list[str]


class DeleteMessage(Request):
    queue_name: str
    message_id: str
    claim_id: str | None = None


class DeleteMessages(Request):
    """Either `message_ids` or `pop`, the number of messages to take from the front."""

    queue_name: str
    message_ids: list[str] | None = None
    claim_ids: list[str] | None = None
    pop: int | None = None


class PostedMessages(TypedDict):
    message_ids: list[str]


class DeadLetterFacts(TypedDict):
    """Where a dead letter is from: its queue, the id that it had there, how often it was claimed,
    and when it was moved, in ISO 8601. `reason` is what the worker gave who rejected it. `ttl` is
    what it had, in seconds; a redrive gives it back.
    """

    queue: str
    message_id: str
    claim_count: int
    at: str
    reason: str | None
    ttl: NotRequired[int]


class Message(TypedDict):
    """`ttl` and `age` in seconds; `claim_id` names the claim that holds it, if one does.

    `attributes`, `group`, `claim_count` and `dead_letter` are shown from version 2.1 of the API on.
    `claim_count` is how often the message had been claimed before; a claim gives it.
    """

    id: str
    claim_id: str | None
    ttl: int
    age: int
    body: Any
    checksum: NotRequired[str]
    attributes: NotRequired[dict[str, str]]
    group: NotRequired[str]
    claim_count: NotRequired[int]
    dead_letter: NotRequired[DeadLetterFacts]


class MessagePage(TypedDict):
    messages: list[Message]
    marker: NotRequired[str]


class SingleMessage(TypedDict):
    messages: Message


@operation(
    'message_post',
    topic='topic_message_post',
    rest='POST /v2/queues/{queue_name}/messages',
    policy='messages:create',
    success=201,
    relation='rel/post_messages',
    repeat=Repeat(given='post_id'),
)
def post_messages(context: Context, request: PostMessages) -> PostedMessages:
    """Post messages, in order; a queue that does not exist is created.

    The `ttl` of a message is at least 60 seconds. A message with a `delay` takes its place in the
    queue when the delay is over, behind all that was visible before. Unlike upstream, where a delay
    only counts in queues whose metadata has `_default_message_delay`, it counts in every queue.
    """
    try:
        return _post(context, request)
    except storage_errors.DoesNotExist:
        # Another process has deleted the queue since its metadata was read here.
        context.forget_metadata_of(request.queue_name)
        return _post(context, request)


@operation(
    'message_list',
    topic='topic_message_list',
    rest='GET /v2/queues/{queue_name}/messages'
    '{?marker,limit,echo,include_claimed,include_delayed,wait}',
    policy='messages:get_all',
    relation='rel/messages',
)
def list_messages(context: Context, request: ListMessages) -> MessagePage:
    """List a queue's messages, oldest first; give the `marker` of one page to get the next."""
    broker = context.broker
    broker.limits.message_listing(limit=request.limit)
    return waiting.wait_for(
        context,
        request.queue_name,
        request.wait,
        lambda: _list(context, request),
        lambda page: bool(page['messages']),
    )


def _list(context: Context, request: ListMessages) -> MessagePage:
    reading = context.broker.reading
    if reading is None:
        return _list_now(context, request)
    with reading():
        return _list_now(context, request)


def _list_now(context: Context, request: ListMessages) -> MessagePage:
    broker = context.broker
    # PERF: not by `given`, which looks at any number of members.
    paging = {} if request.limit is None else {'limit': request.limit}
    if request.marker and request.wait is not None:
        # A client that follows a queue would wait for ever: upstream's lists are only empty.
        broker.check_marker(request.marker)
    results = broker.messages.list(
        request.queue_name,
        project=context.project_id,
        client_uuid=context.client_uuid,
        marker=request.marker,
        echo=request.echo,
        include_claimed=request.include_claimed,
        include_delayed=request.include_delayed,
        **paging,
    )
    try:
        found = collected(next(results))
    except storage_errors.DoesNotExist:
        found = []
    if not found:
        # A waiting client asks again from there.
        marker = None if request.wait is None else next(results, None)
        return {'messages': [], 'marker': str(marker)} if marker else {'messages': []}
    messages = answer_with(context, found)
    return {'messages': messages, 'marker': next(results)}


@operation(
    'message_get_many',
    topic='topic_message_get_many',
    rest='GET /v2/queues/{queue_name}/messages{?ids}',
    policy='messages:get_all',
    aliases={'ids': 'message_ids'},
)
def get_messages(context: Context, request: GetMessages) -> MessagePage:
    """Get messages by their ids; those that are gone are left out."""
    broker = context.broker
    broker.limits.message_listing(limit=len(request.message_ids))
    found = collected(
        broker.messages.bulk_get(
            request.queue_name, message_ids=request.message_ids, project=context.project_id
        )
    )
    return {'messages': answer_with(context, found)}


@operation(
    'message_get',
    topic='topic_message_get',
    rest='GET /v2/queues/{queue_name}/messages/{message_id}',
    policy='messages:get',
    relation='rel/message_get',
)
def get_message(context: Context, request: GetMessage) -> SingleMessage:
    """Get one message."""
    broker = context.broker
    found = broker.messages.get(request.queue_name, request.message_id, project=context.project_id)
    return {'messages': answer_with(context, [found])[0]}


@operation(
    'message_delete',
    topic='topic_message_delete',
    rest='DELETE /v2/queues/{queue_name}/messages/{message_id}{?claim_id}',
    policy='messages:delete',
    success=204,
    relation='rel/message_delete',
)
def delete_message(context: Context, request: DeleteMessage) -> dict[str, Any]:
    """Delete one message; a claimed one only with its claim's id."""
    try:
        context.broker.messages.delete(
            request.queue_name,
            message_id=request.message_id,
            project=context.project_id,
            claim=request.claim_id,
        )
    except storage_errors.ClaimDoesNotExist:
        raise errors.unknown_claim() from None
    context.broker.deleted(request.queue_name, context.project_id)
    return {}


@operation(
    'message_delete_many',
    topic='topic_message_delete_many',
    rest='DELETE /v2/queues/{queue_name}/messages{?ids,claim_ids,pop}',
    policy='messages:delete_all',
    success=(204, 200),
    relation='rel/messages_delete',
    aliases={'ids': 'message_ids'},
    repeat=Repeat(absent='pop'),
)
def delete_messages(context: Context, request: DeleteMessages) -> Reply:
    """Delete messages by their ids (204), or take some from the front of the queue (200)."""
    limits = context.broker.limits
    claim_ids = request.claim_ids
    # PERF: the option is only looked up where it matters.
    if claim_ids is not None and not limits.get_limit_conf_value('message_delete_with_claim_id'):
        claim_ids = None
    limits.message_deletion(request.message_ids, request.pop, claim_ids)
    if request.pop is not None:
        return Reply(200, _pop(context, request.queue_name, request.pop))
    try:
        context.broker.messages.bulk_delete(
            request.queue_name,
            message_ids=request.message_ids or [],
            project=context.project_id,
            claim_ids=claim_ids,
        )
    except storage_errors.ClaimDoesNotExist:
        raise errors.unknown_claim() from None
    context.broker.deleted(request.queue_name, context.project_id)
    return Reply(204, {})


def _post(context: Context, request: PostMessages) -> PostedMessages:
    broker = context.broker
    broker.loops.check(context.passed, context.project_id, request.queue_name)
    metadata = context.ensured_metadata_of(request.queue_name)
    _check_sent_size(context, request.messages, metadata)
    messages, have_delays, have_extras, have_times = _complete(broker, request.messages, metadata)
    broker.limits.message_posting(messages)
    if have_extras or context.trace is not None:
        _add_extras(context, request, messages, metadata)
        if have_times:
            _schedule(context, request, messages)
            have_delays = True
    delayed = [message for message in messages if message.get('delay')] if have_delays else []
    if request.post_id is not None:
        _identify(context, request.queue_name, messages, request.post_id)
    stored = messages
    if metadata.get('_enable_encrypt_messages'):
        check_encryption(broker)
        stored = broker.cipher.encrypt(messages, context.project_id, request.queue_name)
    if delayed and context.passed is not None:
        stored = [{**stored[0], 'passed': context.passed}, *stored[1:]]
    quotas = broker.project_quotas
    if quotas.limit_posts:
        message_ids = _store_within_quotas(context, request, stored)
    else:
        message_ids = _store(context, request.queue_name, stored)
    if delayed:
        if broker.delays is not None:
            source = Source(context.project_id, request.queue_name)
            broker.delays.remember(source, messages, message_ids, context.passed)
        messages = [message for message in messages if not message.get('delay')]
    if messages or not delayed:
        retry_policy = metadata.get('_retry_policy') or {}
        broker.notifier.notify(
            request.queue_name, context.project_id, messages, retry_policy, context.passed
        )
    return {'message_ids': message_ids}


def _stored_size(message: dict[str, Any]) -> int:
    """The bytes of a message that count for the project."""
    size: int = message['body'].size
    return (
        size + len(msgspec.json.encode(message['attributes'])) if 'attributes' in message else size
    )


def _store_within_quotas(
    context: Context, request: PostMessages, messages: list[dict[str, Any]]
) -> list[str]:
    """Store messages for which there is room, or answer again to a post that has been made."""
    broker, queue, project = context.broker, request.queue_name, context.project_id
    quotas = broker.project_quotas
    size = sum(map(_stored_size, messages)) if quotas.limit_bytes else 0
    try:
        with quotas.new_post(len(messages), size, queue, project):
            return _store(context, queue, messages)
    except (errors.QuotaExceeded, errors.BodyTooLarge):
        if request.post_id is None:
            raise
        made = broker.messages.find_post(queue, request.post_id, len(messages), project)
        if made is None:
            raise
        return list(made)


def _store(context: Context, queue_name: str, messages: list[dict[str, Any]]) -> list[str]:
    posted = context.broker.messages.post(
        queue_name,
        messages=messages,
        project=context.project_id,
        client_uuid=context.client_uuid,
    )
    return list(posted)


def _pop(context: Context, queue_name: str, count: int) -> dict[str, Any]:
    broker = context.broker
    context.check_present()
    taken = broker.messages.pop(queue_name, project=context.project_id, limit=count)
    found = list(taken or ())
    if found and context.client is not None:
        popped = [dict(message) for message in found]
        context.undo = functools.partial(_put_back, context, queue_name, popped)
    for message in found:
        if message['body'].encoding is _ENCRYPTED:
            message['body'] = broker.cipher.decrypt(message['body'], context.project_id)
        for name in HIDDEN if context.shows_extensions else (*HIDDEN, *EXTENSIONS):
            message.pop(name, None)
    encoding = _MSGPACK if context.binary else _JSON
    _prepare([message['body'] for message in found], encoding, context.project_id)
    return {'messages': found}


def _put_back(context: Context, queue_name: str, popped: list[dict[str, Any]]) -> None:
    """Give messages back that were taken for a client that cannot be told.

    They go back to their places where the store can, and otherwise to the end of the queue.
    """
    broker, project_id = context.broker, context.project_id
    if broker.features.restores:
        broker.messages.restore(queue_name, popped, project=project_id)
    else:
        again = [
            {
                'ttl': max(1, message['ttl'] - message['age']),
                'body': message['body'],
                'attributes': message.get('attributes'),
                'group': message.get('group'),
            }
            for message in popped
        ]
        broker.messages.post(
            queue_name, messages=again, project=project_id, client_uuid=context.client_uuid
        )
    broker.notifier.freed(queue_name, project_id)


def check_encryption(broker: Broker) -> None:
    """Raise `errors.BadRequest` where this server cannot encrypt messages."""
    if not broker.cipher.can_encrypt:
        raise errors.BadRequest(
            'This server has no key to encrypt messages with ([encryption] keys); '
            'a queue cannot have _enable_encrypt_messages.'
        )


EXTENSIONS: tuple[Literal['attributes', 'group', 'dead_letter'], ...] = (
    'attributes',
    'group',
    'dead_letter',
)
"""Members of messages that upstream's do not have."""

HIDDEN = ('position', 'known_as')
"""Members of stored messages that are nobody's but the server's."""


def collected(found: Iterable[StoredMessage]) -> Collection[StoredMessage]:
    """The messages that a store gives, if it has not given them as a whole."""
    return found if isinstance(found, StoredPage) else list(found)


def answer_with(
    context: Context, found: Collection[StoredMessage], *, counted: bool = False
) -> list[Message]:
    """Stored messages of a project as they are in answers; those of a page may be structures.

    counted: with how often they had been claimed before, as upstream counts.
    """
    encoding = _MSGPACK if context.binary else _JSON
    if isinstance(found, StoredPage):
        page: list[Any] | None = found.in_answer(encoding, counted=counted)
        if page is not None:
            return page
        found = list(found)
    messages = _answer_with_each(context, found, encoding)
    if counted:
        count_claims(messages, found)
    return messages


def _answer_with_each(
    context: Context, found: Collection[StoredMessage], encoding: Encoding
) -> list[Message]:
    show = present_all if context.shows_extensions else present
    messages = show(context.broker, found, context.project_id)
    others = []
    for message in messages:
        body = message['body']
        # PERF: most are in the encoding of the answer.
        if type(body) is Body and body.encoding is encoding:
            message['body'] = body.in_answer(encoding)
        else:
            others.append(message)
    if others:
        _prepare([message['body'] for message in others], encoding, context.project_id)
        for message in others:
            message['body'] = message['body'].in_answer(encoding)
    return messages


def _prepare(stored: list[Body], encoding: Encoding, project_id: str | None) -> None:
    """See `long_documents.prepare`; raises `UndecodableValue`."""
    try:
        long_documents.prepare(stored, encoding, project_id)
    except documents.Malformed as error:
        raise UndecodableValue(str(error)) from None


def present(
    broker: Broker, found: Iterable[StoredMessage], project_id: str | None
) -> list[Message]:
    """Stored messages as upstream's clients see them, with a `Body` each."""
    messages: list[Message] = []
    for one in found:
        body: Body = one['body']
        if body.encoding is _ENCRYPTED:
            body = broker.cipher.decrypt(body, project_id)
        message: Message = {
            'id': one['id'],
            'claim_id': one.get('claim_id'),
            'ttl': one['ttl'],
            'age': one['age'],
            'body': body,
        }
        if checksum := one.get('checksum'):
            message['checksum'] = checksum
        messages.append(message)
    return messages


def present_all(
    broker: Broker, found: Collection[StoredMessage], project_id: str | None
) -> list[Message]:
    """The same for clients that ask for the members that upstream's messages do not have."""
    messages = present(broker, found, project_id)
    for message, one in zip(messages, found, strict=True):
        if 'attributes' in one:
            message['attributes'] = one['attributes']
        if 'group' in one:
            message['group'] = one['group']
        if 'dead_letter' in one:
            message['dead_letter'] = one['dead_letter']
    return messages


def count_claims(messages: list[Message], found: Iterable[StoredMessage]) -> None:
    """Say how often messages had been claimed before by others, as upstream counts."""
    for message, one in zip(messages, found, strict=True):
        if 'claim_count' in one:
            message['claim_count'] = max(0, one['claim_count'] - 1)


def _complete(
    broker: Broker, posted: list[NewMessage], metadata: dict[str, Any]
) -> tuple[list[dict[str, Any]], bool, bool, bool]:
    """The messages to store: with the queue's time to live and delay where they have none.

    Also, whether any has a delay, whether any has attributes, a group or a time of delivery, and
    whether any has a time of delivery. PERF: all that most posts need in one loop.
    """
    queue_delay = metadata.get('_default_message_delay')
    messages: list[dict[str, Any]] = []
    have_delays, have_extras, have_times = False, False, False
    for message in posted:
        ttl, body, delay = message.ttl, message.body, message.delay
        if ttl is msgspec.UNSET:
            ttl = metadata.get('_default_message_ttl') or broker.defaults.message_ttl
        complete = {'ttl': ttl, 'body': body if isinstance(body, Body) else Body.of(body)}
        if delay is None:
            delay = queue_delay
        # Webhooks are told of no delay only where upstream tells of it.
        if delay or queue_delay:
            complete['delay'] = delay
            have_delays = True
        if message.deliver_at is not None:
            have_extras = have_times = True
        elif message.attributes or message.group is not None:
            have_extras = True
        messages.append(complete)
    return messages, have_delays, have_extras, have_times


def _schedule(context: Context, request: PostMessages, messages: list[dict[str, Any]]) -> None:
    """Delay messages until the time at which they are to be delivered."""
    broker = context.broker
    now = timeutils.utcnow_ts(microsecond=True)
    for index, posted in enumerate(request.messages):
        if posted.deliver_at is None:
            continue
        place = f'$.messages[{index}].deliver_at'
        if posted.delay is not None:
            raise errors.BadRequest(f'Give a delay or a time of delivery, not both - at `{place}`')
        broker.require(Feature.SCHEDULES, request.queue_name, context.project_id, place)
        delay = delay_until(posted.deliver_at, now, broker.max_schedule_ahead, place)
        messages[index].update(delay=delay, scheduled=delay > 0)


def _add_extras(
    context: Context,
    request: PostMessages,
    messages: list[dict[str, Any]],
    metadata: dict[str, Any],
) -> None:
    """Give messages their attributes and groups, and the attributes of the trace.

    PERF: places in the request are only put into words where something is refused.
    """
    broker, trace = context.broker, context.trace
    traced = trace.attributes if trace is not None and metadata.get('_trace_context') else None
    attributes_at: int | str | None = None if traced is None else '*'
    group_at = None
    for index, posted in enumerate(request.messages):
        attributes, group = posted.attributes, posted.group
        if attributes:
            attributes_at = index
            if refusal := broker.attributes.refusal_of(attributes):
                raise errors.BadRequest(f'{refusal} - at `$.messages[{index}].attributes`')
            messages[index]['attributes'] = attributes
        if traced is not None:
            messages[index]['attributes'] = _with_trace(broker, attributes, traced)
        if group is not None:
            group_at = index
            if refusal := refusal_of(group):
                raise errors.BadRequest(f'{refusal} - at `$.messages[{index}].group`')
            messages[index]['group'] = group
    queue, project = request.queue_name, context.project_id
    # PERF: most stores take both, and sets are compared without calling Python's code.
    if broker.features_for(queue, project).offered >= _EXTRAS:
        return
    if attributes_at is not None:
        place = f'$.messages[{attributes_at}].attributes'
        broker.require(Feature.ATTRIBUTES, queue, project, place)
    if group_at is not None:
        broker.require(Feature.GROUPS, queue, project, f'$.messages[{group_at}].group')


def _with_trace(
    broker: Broker, attributes: dict[str, str] | None, traced: dict[str, str]
) -> dict[str, str]:
    """Attributes with those of the trace.

    Not where they have their own, or are all that a message may have.
    """
    if not attributes:
        return traced
    together = {**attributes, **traced}
    refused = PARENT in attributes or broker.attributes.refusal_of(together) is not None
    return attributes if refused else together


def _identify(context: Context, queue: str, messages: list[dict[str, Any]], post_id: str) -> None:
    """Let the store know of a post by which id it would be repeated."""
    if not context.broker.features_for(queue, context.project_id).post_id_seconds:
        raise errors.BadRequest(
            'The store of this queue cannot tell posts apart; leave it out - at `$.post_id`'
        )
    messages[0]['post_id'] = post_id


def _check_sent_size(
    context: Context, messages: list[NewMessage], metadata: dict[str, Any]
) -> None:
    limits = context.broker.limits
    queue_limit = metadata.get('_max_messages_post_size')
    limit = limits.max_post_bytes
    if not queue_limit and context.sent_bytes is not None and context.sent_bytes <= limit:
        return
    size = context.size_of(messages, min(limit, queue_limit or limit))
    limits.message_length(size, max_msg_post_size=queue_limit)
