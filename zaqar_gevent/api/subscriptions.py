"""Subscriptions: where the messages of a queue are sent as they are posted."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NotRequired, TypedDict

import msgspec
from keystoneauth1.exceptions import MissingAuthPlugin
from oslo_utils import timeutils
from zaqar.storage import errors as storage_errors

from zaqar_gevent import filters
from zaqar_gevent.api import documents, errors, subscribers
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.delivery import DeliveryState
from zaqar_gevent.api.filter_index import FILTER
from zaqar_gevent.api.notifier import task
from zaqar_gevent.api.operation import Request, operation
from zaqar_gevent.api.push import (
    CONNECTION,
    INTERNAL_PATH,
    Source,
    connected,
    is_internal,
)
from zaqar_gevent.api.queues import NamedQueue
from zaqar_gevent.api.quotas import too_many
from zaqar_gevent.api.settings import RetryPolicy
from zaqar_gevent.storage.features import Feature

_TRUST = 'trust+'
_MAIL = 'mailto:'
_CONTROL = re.compile(r'[\x00-\x1f\x7f]')

# Upstream's notifier logs at INFO what confirms a subscription, signature included.
logging.getLogger('zaqar.notification.notifier').setLevel(logging.WARNING)


class Options(msgspec.Struct):
    """The types of the options that mean something to the notification tasks."""

    post_data: str | None = None
    post_headers: dict[str, str] | None = None
    subject: str | None = None
    sender: str | None = msgspec.field(default=None, name='from')
    retry_policy: RetryPolicy | None = msgspec.field(default=None, name='_retry_policy')


class ListSubscriptions(NamedQueue):
    marker: str | None = None
    limit: int | None = None


class CreateSubscription(NamedQueue):
    """`subscriber` is a URI; `ttl` in seconds. The `options` of a webhook are `post_data`,
    `post_headers`, `_retry_policy` and `webhook_secret`.

    `options.filter`: conditions by the names of attributes. Only messages that meet all of them are
    sent. A condition is a text, a list of texts, `{"prefix": TEXT}` or `{"exists": true}`; a filter
    names at most 16 attributes, and a list has at most 100 texts.

    Over WebSocket it may be left out: then the subscriber is the connection. It is pushed what is
    posted from then on, or with `marker` all that follows that message ('' for the start of the
    queue), and without a `ttl` for as long as it lasts.
    """

    subscriber: str | None = None
    ttl: int | None = None
    options: dict[str, Any] | None = None
    marker: str | None = None


class NamedSubscription(NamedQueue):
    subscription_id: str


class UpdateSubscription(NamedSubscription):
    subscriber: str | None = None
    ttl: int | None = None
    options: dict[str, Any] | None = None


class ResumeSubscription(Request):
    """`marker`: after which message to go on; left out, where the subscription was paused."""

    subscription_id: str
    marker: str | None = None


class ConfirmSubscription(NamedSubscription):
    confirmed: bool


class Subscription(TypedDict):
    """`source` is the queue; `ttl` and `age` in seconds. Of the option `webhook_secret` it is only
    shown whether it is set. `delivery` is there where this process has tried to tell a subscriber.
    """

    id: str
    source: str
    subscriber: str
    ttl: int
    age: int
    options: dict[str, Any]
    confirmed: NotRequired[bool]
    delivery: NotRequired[DeliveryState]


class SubscriptionPage(TypedDict):
    subscriptions: list[Subscription]
    marker: str


class CreatedSubscription(TypedDict):
    """`marker`: of a connection's own subscription, after which message it begins; '' for the
    start of the queue.
    """

    subscription_id: str
    message: str
    marker: NotRequired[str]


@operation(
    'subscription_list',
    topic='topic_subscription_list',
    rest='GET /v2/queues/{queue_name}/subscriptions{?marker,limit}',
    policy='subscription:get_all',
    relation='rel/subscriptions_get',
)
def list_subscriptions(context: Context, request: ListSubscriptions) -> SubscriptionPage:
    """List a queue's subscriptions, a page at a time."""
    broker = context.broker
    broker.limits.subscription_listing(limit=request.limit)
    paging = request.given('limit')
    results = broker.subscriptions.list(
        request.queue_name, project=context.project_id, marker=request.marker, **paging
    )
    source = Source(context.project_id, request.queue_name)
    push_hub = broker.notifier.push_hub
    found = [
        _present(one)
        for one in next(results)
        if push_hub is None or not push_hub.is_hidden(source, one['subscriber'])
    ]
    return {'subscriptions': found, 'marker': str(next(results, None) or request.marker or '')}


@operation(
    'subscription_create',
    topic='topic_subscription_create',
    rest='POST /v2/queues/{queue_name}/subscriptions',
    policy='subscription:create',
    success=201,
    relation='rel/subscriptions_post',
)
def create_subscription(context: Context, request: CreateSubscription) -> CreatedSubscription:
    """Subscribe a URI, or a WebSocket connection, to a queue, which is created if need be."""
    if request.subscriber is None:
        return _subscribe_connection(context, request)
    return _subscribe_uri(context, request, request.subscriber)


@operation('subscription_resume', rest=None, policy='subscription:create', success=204, repeat=True)
def resume_subscription(context: Context, request: ResumeSubscription) -> dict[str, Any]:
    """Go on with a subscription of this connection that was paused."""
    connected(context).resume(request.subscription_id, context.project_id, request.marker)
    return {}


def _subscribe_uri(
    context: Context, request: CreateSubscription, subscriber: str
) -> CreatedSubscription:
    subscriptions = context.broker.subscriptions
    ttl = context.broker.defaults.subscription_ttl if request.ttl is None else request.ttl
    options = subscribers.keep_secret(request.options or {}, {})
    _check(context, {'subscriber': subscriber, 'ttl': ttl, 'options': options})
    _check_filter(context, request.queue_name, options)
    _check_external(context, subscriber)
    _check_number(context, request.queue_name)
    with _new_subscription(context, request.queue_name, subscriber):
        context.ensured_metadata_of(request.queue_name)
        _register(context, subscriber, options, ttl)
        created = subscriptions.create(
            request.queue_name, subscriber, ttl, options, project=context.project_id
        )
    context.forget_subscriptions_of(request.queue_name)
    if not created:
        return _created(request, _unconfirmed(context, request.queue_name, subscriber, ttl))
    found = subscriptions.get(request.queue_name, created, project=context.project_id)
    _ask_to_confirm(context, request.queue_name, found, ttl)
    return _created(request, str(created))


@operation(
    'subscription_get',
    topic='topic_subscription_get',
    rest='GET /v2/queues/{queue_name}/subscriptions/{subscription_id}',
    policy='subscription:get',
    relation='rel/subscription',
)
def get_subscription(context: Context, request: NamedSubscription) -> Subscription:
    """Get one subscription."""
    broker = context.broker
    found = broker.subscriptions.get(
        request.queue_name, _row(context, request), project=context.project_id
    )
    source = Source(context.project_id, request.queue_name)
    state = broker.notifier.state_of(source, found['id']) if context.shows_extensions else None
    shown = _present({**found, 'id': request.subscription_id})
    if state is not None:
        shown['delivery'] = state
    return shown


@operation(
    'subscription_update',
    topic='topic_subscription_update',
    rest='PATCH /v2/queues/{queue_name}/subscriptions/{subscription_id}',
    policy='subscription:update',
    success=204,
    relation='rel/subscription_patch',
    repeat=True,
)
def update_subscription(context: Context, request: UpdateSubscription) -> str:
    """Change a subscription's subscriber, time to live or options."""
    changes = request.given('subscriber', 'ttl', 'options')
    if not changes:
        raise errors.BadRequest('One of subscriber, ttl and options is required.')
    _check(context, changes)
    _check_trust(context, request.subscriber or '')
    _check_external(context, request.subscriber or '')
    subscriptions = context.broker.subscriptions
    target = request.queue_name, _row(context, request), context.project_id
    if 'options' in changes:
        found = subscriptions.get(*target)
        before = found['options'] or {}
        _check_filter(context, request.queue_name, changes['options'], before)
        if is_internal(found['subscriber']) and changes['options'].get(FILTER) != before.get(
            FILTER
        ):
            raise errors.BadRequest(
                'The filter of a connection cannot be changed; end the subscription, and subscribe '
                f'again after its marker - at `$.options.{FILTER}`'
            )
        changes['options'] = subscribers.keep_secret(changes['options'], before)
    try:
        subscriptions.update(*target, **changes)
    except storage_errors.SubscriptionAlreadyExists as error:
        raise errors.Conflict(str(error)) from None
    context.forget_subscriptions_of(request.queue_name)
    source = Source(context.project_id, request.queue_name)
    context.broker.notifier.changed(source, subscriptions.get(*target))
    return f'Subscription {request.subscription_id} updated.'


@operation(
    'subscription_delete',
    topic='topic_subscription_delete',
    rest='DELETE /v2/queues/{queue_name}/subscriptions/{subscription_id}',
    policy='subscription:delete',
    success=204,
    relation='rel/subscription',
)
def delete_subscription(context: Context, request: NamedSubscription) -> str:
    """End a subscription; one that does not exist is as good as ended."""
    context.broker.subscriptions.delete(
        request.queue_name, _row(context, request), project=context.project_id
    )
    context.forget_subscriptions_of(request.queue_name)
    source = Source(context.project_id, request.queue_name)
    context.broker.notifier.ended(source, request.subscription_id, context.endpoint)
    return f'Subscription {request.subscription_id} removed.'


@operation(
    'subscription_confirm',
    topic='topic_subscription_confirm',
    rest='PUT /v2/queues/{queue_name}/subscriptions/{subscription_id}/confirm',
    policy='subscription:confirm',
    success=204,
    relation='rel/subscription_confirm',
)
def confirm_subscription(context: Context, request: ConfirmSubscription) -> str:
    """Confirm a subscription, or withdraw the confirmation."""
    subscriptions = context.broker.subscriptions
    target = (request.queue_name, _row(context, request))
    subscriptions.confirm(*target, project=context.project_id, confirmed=request.confirmed)
    context.forget_subscriptions_of(request.queue_name)
    found = None if request.confirmed else subscriptions.get(*target, project=context.project_id)
    if found is not None and not is_internal(found['subscriber']):
        ttl = context.broker.defaults.subscription_ttl
        _ask_to_confirm(context, request.queue_name, found, ttl, is_unsubscribed=True)
    return f'Subscription {request.subscription_id} confirmed.'


def _row(context: Context, request: NamedSubscription) -> str:
    """The id that the subscription has in the store by now."""
    push_hub = context.broker.notifier.push_hub
    if push_hub is None:
        return request.subscription_id
    return push_hub.row_of(Source(context.project_id, request.queue_name), request.subscription_id)


def _subscribe_connection(context: Context, request: CreateSubscription) -> CreatedSubscription:
    """Subscribe the connection that the request came over."""
    endpoint = context.endpoint
    source = Source(context.project_id, request.queue_name)
    if endpoint is None:
        raise errors.MalformedDocument(
            'Missing parameter `subscriber`; only a WebSocket connection can be one itself - at '
            '`$.subscriber`'
        )
    broker = context.broker
    ttl = broker.defaults.subscription_ttl if request.ttl is None else request.ttl
    options = request.options or {}
    url = endpoint.url_for(source)
    _check_number(context, request.queue_name)
    _check(context, {'subscriber': url, 'ttl': ttl, 'options': options})
    _check_filter(context, request.queue_name, options)
    with _new_subscription(context, request.queue_name, url):
        context.ensured_metadata_of(request.queue_name)
        if request.marker:
            endpoint.verify(source, request.marker)
        marker = endpoint.now(source) if request.marker is None else request.marker or None
        created = broker.subscriptions.create(
            request.queue_name, url, ttl, options, project=context.project_id
        )
    if not created:
        raise _exists_already()
    if broker.conf.notification.require_confirmation:
        # It need not be asked whether it wants to be told: it has asked itself.
        broker.subscriptions.confirm(request.queue_name, created, project=context.project_id)
    context.forget_subscriptions_of(request.queue_name)
    endpoint.subscribe(
        source,
        str(created),
        marker,
        ttl=ttl,
        renewed=request.ttl is None,
        options=options,
        binary=context.binary,
        extended=context.shows_extensions,
        grant=context.grant,
    )
    return {**_created(request, str(created)), 'marker': marker or ''}


def _check_number(context: Context, queue_name: str) -> None:
    """Raise `errors.TooMany` where a queue has as many subscriptions as it may have."""
    broker = context.broker
    most = broker.quotas.subscriptions_per_queue
    if broker.count_subscriptions(queue_name, context.project_id) >= most:
        raise too_many('subscriptions', 'queue', most, 'max_subscriptions_per_queue')


def _new_subscription(
    context: Context, queue_name: str, subscriber: str
) -> AbstractContextManager[None]:
    """Subscribe meanwhile; raises `errors.QuotaExceeded` where the project has no more room."""
    broker, project = context.broker, context.project_id
    if not broker.project_quotas.limit_subscriptions:
        return nullcontext()

    def exists() -> bool:
        try:
            broker.subscriptions.get_with_subscriber(queue_name, subscriber, project=project)
        except storage_errors.SubscriptionDoesNotExist:
            return False
        return True

    return broker.project_quotas.new_subscription(project, exists)


def _created(request: CreateSubscription, subscription_id: str) -> CreatedSubscription:
    return {
        'subscription_id': subscription_id,
        'message': f'Subscription {request.queue_name} created.',
    }


def _present(found: dict[str, Any]) -> Subscription:
    """A subscription as clients see it: without its secret, and without the URL of a connection,
    which holds one too.
    """
    shown: Any = {**subscribers.conceal(found)}
    if is_internal(found['subscriber']):
        shown['subscriber'] = CONNECTION
    subscription: Subscription = shown
    return subscription


def _check_external(context: Context, subscriber: str) -> None:
    """Raise for a subscriber that only a server may make, or that clients may not send to."""
    if is_internal(subscriber):
        raise errors.BadRequest(
            f'A subscriber must not be a URL whose path begins with {INTERNAL_PATH}. Leave it out '
            'to subscribe a WebSocket connection - at `$.subscriber`'
        )
    subscribers.check_subscriber(subscriber, context.broker.networks)


def _check(context: Context, given: dict[str, Any]) -> None:
    """Raise for a subscriber, a time to live or options that cannot be meant."""
    try:
        msgspec.convert(given.get('options') or {}, Options)
    except msgspec.ValidationError as error:
        raise errors.from_decoding(error, '$.options') from None
    if given.get('subscriber') is not None:
        _check_subscriber(context, given['subscriber'])
    try:
        context.broker.limits.subscription_patching(given)
    except ValueError as error:
        raise errors.BadRequest(f'{error} - at `$`') from None
    if given.get('ttl') == 0:
        # Upstream's validator takes these for what is not given.
        raise errors.BadRequest('A subscription must not have expired already - at `$.ttl`')
    _check_size(context, given.get('options') or {})
    subscribers.check_options(given.get('options') or {})


def _check_filter(
    context: Context,
    queue_name: str,
    options: dict[str, Any],
    before: Mapping[str, Any] | None = None,
) -> None:
    """Raise for a filter that is invalid, or that the store of the queue cannot serve.

    before: the options that the subscription has; their filter is not checked again.
    """
    given = options.get(FILTER)
    if given is None or given == (before or {}).get(FILTER):
        return
    try:
        filters.parse(given, f'$.options.{FILTER}')
    except filters.FilterError as error:
        raise errors.BadRequest(str(error)) from None
    context.broker.require(
        Feature.ATTRIBUTES, queue_name, context.project_id, f'$.options.{FILTER}'
    )


def _check_size(context: Context, options: dict[str, Any]) -> None:
    """Raise for options that are too large to be read again and again."""
    size = len(documents.encode_json(options))
    most = context.broker.quotas.subscription_options_bytes
    if size > most:
        raise errors.BadRequest(
            f'The options of a subscription may have at most {most} bytes as JSON '
            '([drivers:transport:gevent] max_subscription_options_size), and these have '
            f'{size} - at `$.options`'
        )


def _check_subscriber(context: Context, subscriber: str) -> None:
    """Raise for a subscriber that could never be told."""
    if not subscriber:
        raise errors.BadRequest('A subscriber must not be empty - at `$.subscriber`')
    if len(subscriber) > subscribers.MAX_SUBSCRIBER_SIZE:
        raise errors.BadRequest(
            f'A subscriber may have at most {subscribers.MAX_SUBSCRIBER_SIZE} characters - at '
            '`$.subscriber`'
        )
    if subscriber != subscriber.strip() or _CONTROL.search(subscriber):
        raise errors.BadRequest(
            'A subscriber must not hold control characters, nor begin or end with white space - at '
            '`$.subscriber`'
        )
    if subscriber.lower().startswith(_MAIL) and '@' not in subscriber.partition('?')[0]:
        raise errors.BadRequest(
            'A mailto subscriber must have an address, as in mailto:a@b.example - at `$.subscriber`'
        )


def _register(context: Context, subscriber: str, options: dict[str, Any], ttl: int) -> None:
    """Let the task of the subscriber's kind prepare, which may add to `options`."""
    scheme = subscriber.partition(':')[0].lower()
    # The task for trusts looks for the user under these names, whatever the transport.
    caller = context.caller
    user = {'X-USER-ID': caller.user_id, 'X-ROLES': ','.join(caller.roles)}
    request_data = {**context.environ, **user}
    try:
        task(scheme).register(subscriber, options, ttl, context.project_id, request_data)
    except MissingAuthPlugin:
        raise errors.BadRequest(
            'A subscriber with trust+ needs the section [trustee] in the server configuration - at '
            '`$.subscriber`'
        ) from None
    except Exception:
        _check_trust(context, subscriber)
        raise


def _check_trust(context: Context, subscriber: str) -> None:
    """Raise for a subscriber that needs a trust where nobody can give one."""
    if subscriber.lower().startswith(_TRUST) and not context.broker.conf.auth_strategy:
        raise errors.BadRequest(
            'A subscriber with trust+ needs Keystone, and this server has no authentication - at '
            '`$.subscriber`'
        )


def _unconfirmed(context: Context, queue_name: str, subscriber: str, ttl: int) -> str:
    """The id of the existing subscription, asked to confirm again if it has not yet."""
    found = context.broker.subscriptions.get_with_subscriber(
        queue_name, subscriber, project=context.project_id
    )
    if found.get('confirmed', True):
        raise _exists_already()
    _ask_to_confirm(context, queue_name, found, ttl)
    return str(found['id'])


def _exists_already() -> errors.Conflict:
    return errors.Conflict(
        'Such subscription already exists. Subscriptions are unique by project + queue + '
        'subscriber URI.'
    )


def _ask_to_confirm(
    context: Context,
    queue_name: str,
    subscription: dict[str, Any],
    ttl: int,
    *,
    is_unsubscribed: bool = False,
) -> None:
    """Send the subscriber what it needs to confirm, where the server wants confirmation."""
    expires = timeutils.utcnow() + datetime.timedelta(seconds=ttl)
    source = Source(context.project_id, queue_name)
    context.broker.notifier.confirmations(source).send_confirm_notification(
        queue_name,
        subscription,
        context.broker.conf,
        context.project_id,
        str(expires),
        'v2',
        is_unsubscribed,
    )
