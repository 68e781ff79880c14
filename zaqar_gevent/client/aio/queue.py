"""Queues and topics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from zaqar_gevent.client.aio import io
from zaqar_gevent.client.aio.consumer import Consumer
from zaqar_gevent.client.aio.io import Opening
from zaqar_gevent.client.aio.message import Claim, Message
from zaqar_gevent.client.aio.redrive import Redrive
from zaqar_gevent.client.aio.requester import Requester
from zaqar_gevent.client.aio.subscription import BEFORE_ALL, Subscription
from zaqar_gevent.client.aio.target import Target, list_names
from zaqar_gevent.client.errors import Conflict, NotFound
from zaqar_gevent.client.fallback import Pace
from zaqar_gevent.client.metadata import patch_of, values_of
from zaqar_gevent.client.schedule import Moment, delivery_time

# So many messages a page, which is upstream's default limit.
PAGE_MESSAGES = 20
DEFAULT_BUFFER_MESSAGES = 1000


class _MessageSource:
    """The common part of queues and topics: posting, reading, subscriptions.

    Each method asks the server, and raises what `Client.call` does.
    """

    _kind: str

    def __init__(self, requester: Requester, name: str) -> None:
        self._target = Target(requester, self._kind, name)

    def __repr__(self) -> str:
        target = self._target
        return f'<{type(self).__name__} {target.name} of {target.requester.traits}>'

    @property
    def name(self) -> str:
        """The name of the queue or topic."""
        return self._target.name

    @property
    def kind(self) -> str:
        """`queue` or `topic`."""
        return self._kind

    @property
    def project(self) -> str | None:
        """The project that it belongs to; None if that is not known here, or not yet."""
        return self._target.requester.project

    async def exists(self) -> bool:
        """Whether it exists; asking does not create it."""
        async for name in list_names(self._target.requester, self._kind, name=self.name):
            if name == self.name:
                return True
        return False

    async def create(self, metadata: Mapping[str, Any] | None = None) -> bool:
        """Create it; whether it did not exist.

        One that exists is left as it is. Raises Conflict if it has other values of this metadata;
        `configure` changes them. (A server of upstream's does not tell.)
        """
        return (await self._target.perform('queue_create', metadata=metadata)).status == 201

    async def delete(self) -> None:
        """Delete it with its messages; one that does not exist is as good as deleted."""
        await self._target.call('queue_delete')

    async def get_metadata(self) -> dict[str, Any]:
        """Its metadata, with the server's defaults."""
        metadata: dict[str, Any] = await self._target.call('queue_get')
        return metadata

    async def configure(
        self, metadata: Mapping[str, Any] | None = None, /, **settings: Any
    ) -> dict[str, Any]:
        """Change settings, whether it exists or not, and get all metadata.

        settings: `default_ttl`, `default_delay`, `max_post_size`, `max_claims`,
        `dead_letter_queue`, `dead_letter_ttl`, `retry_delay`, `flavor`, `encrypt`,
        `ordered_groups`, `fair_groups`, `trace_context`, `retry_policy`; see docs/settings.md for
        each. None takes one back to its default. Those that are not given stay as they are. Topics
        have some of them.

        metadata: keys of your own and their values, None to remove one; settings may also be given
        here by their reserved keys, such as `_max_claim_count`.

        What does not exist is created. Raises TypeError for a name that no setting has, ValueError
        for a reserved key that means nothing, and BadRequest for a wrong value.
        """
        values = values_of(self._kind, metadata, settings)
        removes = None in values.values()
        changes = patch_of(values, await self.get_metadata() if removes else {})
        if not changes:
            return await self.get_metadata()
        try:
            return await self.update(changes)
        except NotFound:
            pass
        with contextlib.suppress(Conflict):
            # A new one has its settings from the start.
            if await self.create({key: one for key, one in values.items() if one is not None}):
                return await self.get_metadata()
        return await self.update(changes)

    async def update(self, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Change the metadata by a JSON patch, and get the result; see also `configure`."""
        if isinstance(changes, Mapping):
            raise TypeError(
                "The changes must be a list such as [{'op': 'add', 'path': '/metadata/key', "
                "'value': 1}] (a JSON Patch). For a dict of keys and values use configure()."
            )
        metadata: dict[str, Any] = await self._target.call('queue_update', changes=list(changes))
        return metadata

    async def stats(self) -> dict[str, Any]:
        """How many messages there are: `{'messages': {'claimed', 'free', 'total', ...}}`."""
        stats: dict[str, Any] = await self._target.call('queue_get_stats')
        return stats

    async def purge(self, resource_types: Sequence[str] = ('messages',)) -> None:
        """Remove all unclaimed messages, all subscriptions, or both.

        resource_types: `messages`, `subscriptions`, or both.
        """
        await self._target.call('queue_purge', resource_types=list(resource_types))

    async def post(
        self,
        body: Any,
        *,
        ttl: int | None = None,
        delay: int | None = None,
        deliver_at: Moment | None = None,
        attributes: Mapping[str, str] | None = None,
        group: str | None = None,
        post_id: str | None = None,
    ) -> list[str]:
        """Post a message, or of a list each as one, in order; the ids.

        ttl, delay: in seconds; left out, they are the queue's. A ttl is at least 60. Before its
        delay is over, a message is neither given to anybody nor listed. A list as one body goes
        into a list of its own: `post([[1, 2]])`. All of a list are posted, or none.

        deliver_at: instead of a delay, the time at which the message can be seen: a datetime with a
        time zone, seconds since the epoch, or a text by RFC 3339. Its ttl counts from then on.

        attributes: texts by name, which come back with each message beside its body.

        group: the name of the group of each message, 1 to 128 characters. In a queue with
        `_ordered_groups` one worker at a time has messages of a group, in their order.

        post_id: an id of yours for this post, 1 to 64 characters. A further post to the queue with
        the same id stores nothing and returns the ids of the first, for as long as
        `capabilities().idempotency_seconds` says.
        """
        options = {
            'ttl': ttl,
            'delay': delay,
            'deliver_at': delivery_time(deliver_at),
            'attributes': None if attributes is None else dict(attributes),
            'group': group,
        }
        given = {name: value for name, value in options.items() if value is not None}
        bodies = body if isinstance(body, list) else [body]
        messages = [{'body': one, **given} for one in bodies]
        answer = await self._target.call('message_post', messages=messages, post_id=post_id)
        ids: list[str] = answer['message_ids']
        return ids

    async def messages(
        self,
        *,
        marker: str | None = None,
        limit: int = PAGE_MESSAGES,
        echo: bool = True,
        include_claimed: bool = False,
        include_delayed: bool = False,
    ) -> AsyncIterator[Message]:
        """All messages, oldest first, page by page.

        marker: begin after that message. limit: how many are asked for at a time. echo: also what
        this client has posted.
        """
        while True:
            body = await self._target.call(
                'message_list',
                marker=marker or (BEFORE_ALL if include_claimed else None),
                limit=limit,
                echo=echo,
                include_claimed=include_claimed or None,
                include_delayed=include_delayed or None,
            )
            page = self._target.read_page(body, marker)
            for message in page:
                yield message
            if not page or page[-1].marker == marker:
                return
            marker = page[-1].marker

    async def get(self, message_id: str) -> Message:
        """One message; raises NotFound."""
        body = await self._target.call('message_get', message_id=message_id)
        return Message(self._target, body['messages'])

    async def get_messages(self, message_ids: Sequence[str]) -> list[Message]:
        """Messages by their ids; those that are gone are left out."""
        body = await self._target.call('message_get_many', message_ids=list(message_ids))
        return [Message(self._target, one) for one in body['messages']]

    async def delete_message(self, message_id: str, claim_id: str | None = None) -> None:
        """Delete one message, a claimed one by its claim's id."""
        await self._target.delete_message(message_id, claim_id)

    async def delete_messages(
        self, message_ids: Sequence[str], claim_ids: Sequence[str] | None = None
    ) -> None:
        """Delete messages by their ids."""
        claims = None if claim_ids is None else list(claim_ids)
        ids = list(message_ids)
        await self._target.call('message_delete_many', message_ids=ids, claim_ids=claims)

    async def pop(self, count: int = 1) -> list[Message]:
        """Take messages from the front: they are deleted as they are read."""
        body = await self._target.call('message_delete_many', pop=count)
        return [Message(self._target, one) for one in body['messages']]

    def subscribe(
        self,
        marker: str | None = None,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        buffer: int = DEFAULT_BUFFER_MESSAGES,
        on_restart: Callable[[], None] | None = None,
    ) -> Opening[Subscription]:
        """Receive each message once and in order, claimed ones too: pushed, or polled.

        marker: '' begins with the oldest message, None with what is posted from now on, and any
        other after that message. buffer: how many messages may wait here to be received.

        filter: conditions by the names of attributes, all of which a message must meet: a text, a
        list of texts, `{'prefix': text}`, `{'exists': True}` or `{'exists': False}`. Raises
        ValueError for what is no filter.

        on_restart: called when it begins again with the oldest message, since the server's store
        is another one by now.
        """
        return Opening(Subscription.open(self._target, marker, buffer, on_restart, filter))

    async def notify(
        self,
        uri: str,
        *,
        ttl: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Have the server tell a URI (http, https, mailto, trust+...) of each message posted.

        Returns the id of the subscription that this makes. Raises Conflict if there is one already.
        """
        created = await self._target.call(
            'subscription_create', subscriber=uri, ttl=ttl, options=options
        )
        return str(created['subscription_id'])

    async def subscriptions(self, *, limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """The subscriptions of URIs, as the server describes them."""
        marker = None
        while True:
            page = await self._target.call('subscription_list', marker=marker, limit=limit)
            for one in page['subscriptions']:
                yield one
            if not page['subscriptions'] or not page.get('marker') or page['marker'] == marker:
                return
            marker = page['marker']

    async def get_subscription(self, subscription_id: str) -> dict[str, Any]:
        """A subscription of a URI, and how its deliveries go; raises NotFound."""
        found: dict[str, Any] = await self._target.call(
            'subscription_get', subscription_id=subscription_id
        )
        return found

    async def update_subscription(
        self,
        subscription_id: str,
        *,
        subscriber: str | None = None,
        ttl: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Change where a subscription leads, how many seconds it lives, or its options."""
        await self._target.call(
            'subscription_update',
            subscription_id=subscription_id,
            subscriber=subscriber,
            ttl=ttl,
            options=options,
        )

    async def unsubscribe(self, subscription_id: str) -> None:
        """End the subscription of a URI."""
        await self._target.call('subscription_delete', subscription_id=subscription_id)


class Queue(_MessageSource):
    """A queue, whether it exists or not; `Client.queue` gives it."""

    _kind = 'queue'

    async def share(
        self,
        *,
        paths: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        expires: str | None = None,
    ) -> dict[str, Any]:
        """A pre-signed URL, with which others can use the queue without a token."""
        signed: dict[str, Any] = await self._target.call(
            'queue_share',
            paths=None if paths is None else list(paths),
            methods=None if methods is None else list(methods),
            expires=expires,
        )
        return signed

    def claim(
        self,
        *,
        limit: int | None = None,
        ttl: int | None = None,
        grace: int | None = None,
        wait: float = 0,
    ) -> Opening[Claim]:
        """Claim the oldest free messages; the claim is empty if there are none.

        ttl: how long the claim holds, in seconds, 60 or more. grace: how long its messages live at
        least when it ends, in seconds, 60 or more. wait: for how many seconds to wait if the queue
        is empty.
        """
        return Opening(self._claim(wait, limit=limit, ttl=ttl, grace=grace))

    async def _claim(self, wait: float, **terms: int | None) -> Claim:
        requester = self._target.requester
        deadline = time.monotonic() + wait
        pace = Pace()
        while True:
            left = max(deadline - time.monotonic(), 0)
            claim, waited = await requester.cleanups.complete(
                self._claim_once(left, **terms), self._unclaim
            )
            left = deadline - time.monotonic()
            if claim.messages or left <= 0:
                return claim
            if not waited:
                await io.sleep(min(pace.pause(), left))

    async def _claim_once(self, wait: float, **terms: int | None) -> tuple[Claim, bool]:
        arguments = self._target.arguments(**terms)
        requester = self._target.requester
        body, waited = await requester.perform_waiting('claim_create', arguments, wait)
        return self._target.read_claim(body), waited

    async def _unclaim(self, claimed: tuple[Claim, bool]) -> None:
        await claimed[0].release()

    async def renew_claim(
        self, claim_id: str, ttl: int | None = None, grace: int | None = None
    ) -> None:
        """Let a claim live for `ttl` seconds from now; raises NotFound if it has expired."""
        await self._target.renew_claim(claim_id, ttl, grace)

    async def release_claim(self, claim_id: str) -> None:
        """Give a claim's messages back; one that does not exist is as good as released."""
        await self._target.release_claim(claim_id)

    async def redrive(
        self,
        *,
        target: str | None = None,
        limit: int | None = None,
        rate: float | None = None,
    ) -> Redrive:
        """Have the server move this queue's dead letters back, in the background.

        target: the queue they go to; left out, each goes to the queue that it is from. limit: how
        many are moved at most. rate: how many a second at most.
        """
        created = await self._target.call('redrive_create', target=target, limit=limit, rate=rate)
        return await self.get_redrive(created['redrive_id'])

    async def get_redrive(self, redrive_id: str) -> Redrive:
        """A redrive by its id; raises NotFound."""
        found = await self._target.call('redrive_get', redrive_id=redrive_id)
        return Redrive(self._target, found)

    async def redrives(self, *, limit: int | None = None) -> AsyncIterator[Redrive]:
        """The redrives of this queue, oldest first, page by page.

        limit: how many are asked for at a time.
        """
        marker = None
        while True:
            page = await self._target.call('redrive_list', marker=marker, limit=limit)
            found = page['redrives']
            for one in found:
                yield Redrive(self._target, one)
            if not found or found[-1]['id'] == marker:
                return
            marker = found[-1]['id']

    def consume(
        self, *, credit: int = 10, ttl: int | None = None, grace: int | None = None
    ) -> Consumer:
        """Work on the messages: each is leased to the consumer until it is settled.

        credit: how many may be unsettled at a time. ttl, grace: of the leases, in seconds, 60 or
        more; they are renewed as long as the consumer lives.
        """
        return Consumer(self._target, credit, ttl, grace)


class Topic(_MessageSource):
    """A topic: a queue without claims and consumers."""

    _kind = 'topic'
