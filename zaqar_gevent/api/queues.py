"""Queues: named places for messages, with metadata that sets their limits and defaults."""

from __future__ import annotations

import re
from typing import Any, Literal, NotRequired, TypedDict

import msgspec
from zaqar.storage import errors as storage_errors
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent import dead_letters, redrives
from zaqar_gevent.api import documents, errors, signed_urls
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.context import Context, Metadata
from zaqar_gevent.api.messages import check_encryption
from zaqar_gevent.api.operation import Kind, Repeat, Reply, Request, operation
from zaqar_gevent.api.push import Source
from zaqar_gevent.api.settings import NEEDED, SETTINGS, ReservedMetadata, Setting
from zaqar_gevent.message_groups import mode_of
from zaqar_gevent.storage.interface import read_metadata

MAX_FILTERS = 100
_BAD_ESCAPE = re.compile(r'~(?![01])')
PATCH_MEDIA_TYPE = 'application/openstack-messaging-v2.0-json-patch'


class ListQueues(Request):
    """`metadata`: list only queues whose metadata has these values."""

    marker: str | None = None
    limit: int | None = None
    detailed: bool = False
    name: str | None = None
    with_count: bool = False
    metadata: Metadata = msgspec.field(default_factory=dict)


class NamedQueue(Request):
    queue_name: str


class CreateQueue(NamedQueue):
    metadata: Metadata | None = None


class Change(msgspec.Struct):
    """One step of a JSON patch; `path` is `/metadata/KEY`."""

    op: Literal['add', 'remove', 'replace']
    path: str
    value: Any = msgspec.UNSET


class UpdateQueue(NamedQueue):
    changes: list[Change]


class PurgeQueue(NamedQueue, forbid_unknown_fields=True):
    resource_types: list[Literal['messages', 'subscriptions']] = msgspec.field(
        default_factory=lambda: ['messages', 'subscriptions']
    )


class ListedQueue(TypedDict):
    name: str
    metadata: NotRequired[Metadata]


class QueuePage(TypedDict):
    """`queues`, or `topics` where those were asked for."""

    queues: NotRequired[list[ListedQueue]]
    topics: NotRequired[list[ListedQueue]]
    marker: str
    count: NotRequired[int]


@operation(
    'queue_list',
    topic='topic_list',
    rest='GET /v2/queues{?marker,limit,detailed,name,with_count}',
    policy='queues:get_all',
    relation='rel/queues',
    filters='metadata',
)
def list_queues(context: Context, request: ListQueues) -> QueuePage:
    """List the project's queues by name, a page at a time.

    Give the `marker` of one page to get the next. Topics are not counted: no store does that.
    """
    broker = context.broker
    broker.limits.queue_listing(limit=request.limit)
    if len(request.metadata) > MAX_FILTERS:
        raise errors.BadRequest(
            f'Queues can be filtered by at most {MAX_FILTERS} metadata values - at `$.metadata`'
        )
    paging = request.given('limit')
    results = context.queues.list(
        project=context.project_id,
        kfilter=request.metadata,
        marker=request.marker,
        detailed=request.detailed,
        name=request.name,
        **paging,
    )
    queues = list(next(results))
    page: QueuePage = {'marker': next(results, None) or request.marker or ''}
    page['queues' if context.kind is Kind.QUEUE else 'topics'] = queues
    if request.detailed:
        for queue in queues:
            queue['metadata'] = _with_defaults(context, queue.get('metadata') or {})
    if request.with_count and context.kind is Kind.QUEUE:
        page['count'] = context.queues.calculate_resource_count(project=context.project_id)
    return page


@operation(
    'queue_create',
    topic='topic_create',
    rest='PUT /v2/queues/{queue_name}',
    policy='queues:create',
    success=(201, 204),
    relation='rel/queue',
    payload='metadata',
)
def create_queue(context: Context, request: CreateQueue) -> Reply:
    """Create a queue; one that exists is left as it is (204).

    From version 2.1 of the API on, 409 says that a queue exists with other values of the given
    metadata.
    """
    if request.metadata is not None:
        _check_sent_size(context, request.metadata)
        _check_metadata(context, request.queue_name, request.metadata)
        _check_dead_letters(context, request.queue_name, request.metadata)
    try:
        created = context.create_queue(request.queue_name, request.metadata)
    except storage_errors.FlavorDoesNotExist as error:
        raise errors.BadRequest(f'{error} - at `$.metadata._flavor`') from None
    context.forget_metadata_of(request.queue_name)
    if created and request.metadata:
        _undo_dead_letters(context, request.queue_name, request.metadata, {})
    if not created and request.metadata and context.shows_extensions:
        _check_present(context, request.queue_name, request.metadata)
    return Reply(201 if created else 204, _told(context, request, 'created'))


@operation(
    'queue_get',
    topic='topic_get',
    rest='GET /v2/queues/{queue_name}',
    policy='queues:get',
    relation='rel/queue',
)
def get_queue(context: Context, request: NamedQueue) -> Metadata:
    """Get a queue's metadata, with the server's defaults where it has none of its own."""
    metadata = read_metadata(context.queues, request.queue_name, context.project_id)
    return _with_defaults(context, metadata)


@operation(
    'queue_delete',
    topic='topic_delete',
    rest='DELETE /v2/queues/{queue_name}',
    policy='queues:delete',
    success=204,
    relation='rel/queue',
)
def delete_queue(context: Context, request: NamedQueue) -> str:
    """Delete a queue and its messages; one that does not exist is as good as deleted."""
    if context.kind is Kind.QUEUE:
        _stop_redrives(context.broker, request.queue_name, context.project_id)
    context.queues.delete(request.queue_name, project=context.project_id)
    context.forget_metadata_of(request.queue_name)
    return _told(context, request, 'removed')


@operation(
    'queue_update',
    topic='topic_update',
    rest='PATCH /v2/queues/{queue_name}',
    policy='queues:update',
    relation='rel/queue',
    payload='changes',
    media_types=(PATCH_MEDIA_TYPE,),
    repeat=Repeat(changes=('add', 'replace')),
)
def update_queue(context: Context, request: UpdateQueue) -> Metadata:
    """Change a queue's metadata by a JSON patch and get the result."""
    broker = context.broker
    _check_sent_size(context, request.changes)
    steps = [_step(change, index) for index, change in enumerate(request.changes)]
    metadata = context.queues.get_metadata(request.queue_name, project=context.project_id) or {}
    known = reserved_metadata(broker, context.kind)
    before = dict(metadata)
    for key, change in steps:
        _apply(key, change, metadata, known)
    _check_metadata(context, request.queue_name, metadata, before)
    if metadata.get('_dead_letter_queue') != before.get('_dead_letter_queue'):
        _check_dead_letters(context, request.queue_name, metadata)
    broker.limits.queue_metadata_length(len(documents.encode_json(metadata)))
    context.queues.set_metadata(request.queue_name, metadata, context.project_id)
    context.forget_metadata_of(request.queue_name)
    _undo_dead_letters(context, request.queue_name, metadata, before)
    if mode_of(metadata) != mode_of(before):
        # Messages that were held up may be free now.
        broker.notifier.freed(request.queue_name, context.project_id)
    return _with_defaults(context, metadata)


class MessageStats(TypedDict, total=False):
    claimed: int
    free: int
    total: int
    oldest: dict[str, Any]
    newest: dict[str, Any]


class QueueStats(TypedDict):
    messages: MessageStats


@operation(
    'queue_get_stats',
    topic='topic_get_stats',
    rest='GET /v2/queues/{queue_name}/stats',
    policy='queues:stats',
    relation='rel/queue_stats',
)
def get_stats(context: Context, request: NamedQueue) -> QueueStats:
    """Count a queue's messages; a queue that does not exist has none."""
    try:
        stats: QueueStats = context.queues.stats(request.queue_name, project=context.project_id)
    except (
        storage_errors.DoesNotExist,
        storage_errors.QueueIsEmpty,
        storage_errors.TopicIsEmpty,
    ):
        return {'messages': {'claimed': 0, 'free': 0, 'total': 0}}
    return stats


@operation(
    'queue_purge',
    topic='topic_purge',
    rest='POST /v2/queues/{queue_name}/purge',
    policy='queues:purge',
    success=204,
    relation='rel/queue_purge',
    body_members=('resource_types',),
)
def purge_queue(context: Context, request: PurgeQueue) -> dict[str, Any]:
    """Remove the unclaimed messages, the subscriptions, or both from a queue that stays.

    What is posted or subscribed meanwhile stays, too.
    """
    if 'messages' in request.resource_types:
        context.broker.purge(request.queue_name, context.project_id)
    if 'subscriptions' in request.resource_types:
        _purge_subscriptions(context, request.queue_name)
    return {}


class ShareQueue(NamedQueue, forbid_unknown_fields=True):
    """`paths` are below the queue, by default `messages`; `methods` are by default `GET`; `expires`
    is a time in ISO 8601.
    """

    paths: list[Literal['messages', 'subscriptions', 'claims']] | None = None
    methods: list[Literal['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']] | None = None
    expires: str | None = None


@operation(
    'queue_share',
    rest='POST /v2/queues/{queue_name}/share',
    policy='queues:share',
    relation='rel/queue_share',
    needs_body=True,
    repeat=True,
)
def share_queue(context: Context, request: ShareQueue) -> signed_urls.SignedUrl:
    """Make a pre-signed URL, with which others can use a queue without a token.

    They send what it says in the headers URL-Signature, URL-Expires, URL-Methods, URL-Paths and
    X-Project-ID.
    """
    paths = [f'/v2/queues/{request.queue_name}/{path}' for path in request.paths or ['messages']]
    return signed_urls.sign(
        context.broker.conf.signed_url.secret_key,
        paths,
        project=context.project_id,
        methods=list(request.methods or ['GET']),
        expires=request.expires,
    )


# So many at a time that nobody subscribes faster than they are read.
_PURGED_PAGE = 1000


def _purge_subscriptions(context: Context, queue_name: str) -> None:
    """Remove the subscriptions that are there now."""
    subscriptions = context.broker.subscriptions
    project_id = context.project_id
    ids: dict[str, None] = {}
    marker = None
    while True:
        results = subscriptions.list(queue_name, project_id, marker, _PURGED_PAGE)
        page = [str(one['id']) for one in next(results, ())]
        marker = next(results, None)
        if not marker or not set(page) - ids.keys():
            break
        ids.update(dict.fromkeys(page))
    for one in ids:
        subscriptions.delete(queue_name, one, project=project_id)
        context.broker.notifier.ended(Source(project_id, queue_name), one)
    context.forget_subscriptions_of(queue_name)


def reserved_metadata(broker: Broker, kind: Kind) -> Metadata:
    """The settings that every queue shows, with the values of a queue that sets none.

    Topics are not claimed from, so they have some of them only.
    """
    return {
        one.key: _default_of(broker, one)
        for one in SETTINGS
        if one.is_shown and (one.for_topics or kind is not Kind.TOPIC)
    }


def _stop_redrives(broker: Broker, queue_name: str, project: str | None) -> None:
    """Let no redrive go on with a later queue of the same name."""
    controller = broker.redrives_for(queue_name, project)
    if controller is None:
        return
    for redrive in controller.list(queue_name, project, limit=redrives.KEPT_OF_QUEUE):
        if redrive['state'] == redrives.State.RUNNING:
            state, reason = redrives.State.STOPPED, redrives.FORGOTTEN_QUEUE
            controller.end(queue_name, redrive['id'], project, state, reason)


def _default_of(broker: Broker, setting: Setting) -> Any:
    if setting.option is not None:
        return broker.limit(setting.option)
    return False if setting.form == 'switch' else None


def _told(context: Context, request: NamedQueue, done: str) -> str:
    return f'{context.kind.value.title()} {request.queue_name} {done}.'


def _with_defaults(context: Context, metadata: Metadata) -> Metadata:
    for name, value in reserved_metadata(context.broker, context.kind).items():
        metadata[name] = metadata.get(name) or value
    return metadata


def _check_sent_size(context: Context, document: Any) -> None:
    broker = context.broker
    size = context.size_of(document, broker.limit('max_queue_metadata'))
    broker.limits.queue_metadata_length(size)


def _check_metadata(
    context: Context, queue_name: str, metadata: Metadata, before: Metadata | None = None
) -> None:
    """Refuse settings that are wrong, or that the store cannot do unless it has them already.

    before: the metadata that the queue has.
    """
    broker = context.broker
    try:
        msgspec.convert(metadata, ReservedMetadata)
    except msgspec.ValidationError as error:
        raise errors.from_decoding(error, '$.metadata') from None
    if metadata.get('_enable_encrypt_messages'):
        check_encryption(broker)
    for name, feature in NEEDED.items():
        if metadata.get(name) and metadata[name] != (before or {}).get(name):
            broker.require(feature, queue_name, context.project_id, f'$.metadata.{name}')
    broker.limits.queue_metadata_putting(metadata)


def _check_present(context: Context, queue_name: str, metadata: Metadata) -> None:
    """Raise `errors.Conflict` where a queue does not have this metadata, which is not set then."""
    stored = read_metadata(context.queues, queue_name, context.project_id)
    present = _with_defaults(context, dict(stored))
    wanted = _with_defaults(context, dict(metadata))
    others = sorted(key for key in metadata if wanted[key] != present.get(key))
    if others:
        raise errors.Conflict(
            f'The {context.kind.value} {queue_name} exists with other values of '
            f'{", ".join(others)}, and was left as it is; change them by '
            f'{context.kind.value}_update (PATCH) - at `$.metadata`'
        )


def _check_dead_letters(context: Context, queue_name: str, metadata: Metadata) -> None:
    """Refuse a dead letter queue that cannot exist, or from which messages would come back."""
    queues = context.broker.queues
    place = '`$.metadata._dead_letter_queue`'
    try:
        context.broker.limits.queue_identification(
            metadata.get('_dead_letter_queue') or queue_name, context.project_id
        )
        cycle = dead_letters.find_cycle(
            queue_name, metadata, lambda name: read_metadata(queues, name, context.project_id)
        )
    except ValidationFailed as error:
        raise errors.BadRequest(f'{error} - at {place}') from None
    except dead_letters.ChainTooLong as error:
        raise errors.BadRequest(f'{error} - at {place}') from None
    if cycle:
        raise errors.BadRequest(
            f'{_capitalized(dead_letters.describe_cycle(cycle))}; name another queue, or none - at '
            f'{place}'
        )
    target = metadata.get('_dead_letter_queue')
    if target:
        pools = [
            context.broker.find_pool(name, context.project_id) for name in (queue_name, target)
        ]
        if None not in pools and pools[0] != pools[1]:
            raise errors.BadRequest(
                f'The queues {queue_name} and {target} are in different pools, and messages can be '
                f'moved within a pool only; name a queue of the pool {pools[0]}, or one that does '
                f'not exist yet - at {place}'
            )


def _undo_dead_letters(
    context: Context, queue_name: str, metadata: Metadata, before: Metadata
) -> None:
    """Take back the dead letter queue that was just set, where it cannot be one after all.

    Two queues may have been changed at the same time, each to the other's dead letter queue; who
    looks after the last change sees that. And the pool of a new queue is known only now.
    """
    target = before.get('_dead_letter_queue')
    if metadata.get('_dead_letter_queue') in (None, target):
        return
    try:
        _check_dead_letters(context, queue_name, metadata)
    except errors.BadRequest as error:
        kept = {**metadata, '_dead_letter_queue': target}
        if target is None:
            del kept['_dead_letter_queue']
        context.queues.set_metadata(queue_name, kept, context.project_id)
        context.forget_metadata_of(queue_name)
        raise errors.BadRequest(
            f'{error}. Everything else that the request asks for was done'
        ) from None


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _step(change: Change, index: int) -> tuple[str, Change]:
    """The metadata's key that a change is about, and the change."""
    place = f'$.changes[{index}]'
    if _BAD_ESCAPE.search(change.path):
        raise errors.BadRequest(
            f'In a path, ~ must be written as ~0 and / as ~1 - at `{place}.path`'
        )
    parts = [part.replace('~1', '/').replace('~0', '~').strip() for part in change.path.split('/')]
    is_path = len(parts) == 3 and not parts[0] and all(parts[1:])
    # As upstream, which does not look at the root of what is removed.
    if not is_path or (change.op != 'remove' and parts[1].lower() != 'metadata'):
        raise errors.BadRequest(
            f'The path must be /metadata/KEY, not {change.path} - at `{place}.path`'
        )
    if change.op != 'remove' and change.value is msgspec.UNSET:
        raise errors.BadRequest(f'The operation {change.op} needs a value - at `{place}.value`')
    return parts[2], change


def _apply(key: str, change: Change, metadata: Metadata, known: Metadata) -> None:
    """Carry out one change of a patch; `known` names are there even when they are not stored."""
    if change.op != 'add' and key not in metadata and key not in known:
        raise errors.Conflict(f"Can't {change.op} non-existent object {key}.")
    if change.op == 'remove':
        metadata.pop(key, None)
    else:
        metadata[key] = change.value
