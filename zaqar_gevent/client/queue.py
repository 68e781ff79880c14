"""Queues and topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zaqar_gevent.client.consumer import Consumer
from zaqar_gevent.client.fallback import Pace
from zaqar_gevent.client.message import Claim, Message
from zaqar_gevent.client.subscription import BEFORE_ALL, Subscription

if TYPE_CHECKING:
    from zaqar_gevent.client.client import Client

# So many messages a page, which is upstream's default limit.
PAGE_MESSAGES = 20
DEFAULT_BUFFER_MESSAGES = 1000


class Source:
    """What queues and topics have in common: messages to post and read, and subscriptions.

    Each method asks the server, and raises what `Client.call` does.
    """

    kind: str
    _prefix: str

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.name}>'

    def call(self, action: str, **arguments: Any) -> Any:
        """Perform an operation here, by a queue's name of it; what is None is left out."""
        return self.client.perform(self.action(action), self.arguments(**arguments)).body

    def action(self, action: str) -> str:
        """The name of an operation here, by a queue's name of it."""
        return action

    def arguments(self, **given: Any) -> dict[str, Any]:
        """The arguments of an operation here; what is None is left out."""
        named = {f'{self.kind}_name': self.name}
        return named | {name: value for name, value in given.items() if value is not None}

    def create(self, metadata: Mapping[str, Any] | None = None) -> bool:
        """Create it; whether it did not exist. One that exists is left as it is."""
        arguments = self.arguments(metadata=metadata)
        return self.client.perform(self.action('queue_create'), arguments).status == 201

    def delete(self) -> None:
        """Delete it with its messages; one that does not exist is as good as deleted."""
        self.call('queue_delete')

    def get_metadata(self) -> dict[str, Any]:
        """Its metadata, with the server's defaults."""
        metadata: dict[str, Any] = self.call('queue_get')
        return metadata

    @property
    def metadata(self) -> dict[str, Any]:
        """The same; the server is asked each time."""
        return self.get_metadata()

    def update(self, changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Change the metadata by a JSON patch, and get the result."""
        metadata: dict[str, Any] = self.call('queue_update', changes=list(changes))
        return metadata

    def stats(self) -> dict[str, Any]:
        """How many messages there are: `{'messages': {'claimed', 'free', 'total', ...}}`."""
        stats: dict[str, Any] = self.call('queue_get_stats')
        return stats

    def purge(self, resource_types: Sequence[str] = ('messages', 'subscriptions')) -> None:
        """Remove all unclaimed messages, all subscriptions, or both."""
        self.call('queue_purge', resource_types=list(resource_types))

    def post(self, body: Any, *, ttl: int | None = None, delay: int | None = None) -> list[str]:
        """Post a message, or of a list each as one, in order; the ids.

        ttl, delay: in seconds; left out, they are the queue's. A ttl is at least 60; a
        message is neither given to anybody nor listed before its delay is over. A list as
        one body goes into a list of its own: `post([[1, 2]])`. All of a list are posted or none.
        """
        bodies = body if isinstance(body, list) else [body]
        options = {'ttl': ttl, 'delay': delay}
        given = {name: value for name, value in options.items() if value is not None}
        posted = self.call('message_post', messages=[{'body': one, **given} for one in bodies])
        ids: list[str] = posted['message_ids']
        return ids

    def messages(
        self,
        *,
        marker: str | None = None,
        limit: int = PAGE_MESSAGES,
        echo: bool = True,
        include_claimed: bool = False,
        include_delayed: bool = False,
    ) -> Iterator[Message]:
        """All messages, oldest first, page by page.

        marker: begin after that message. limit: how many are asked for at a time. echo: also what
        this client has posted.
        """
        while True:
            page = self.page(
                marker=marker or (BEFORE_ALL if include_claimed else None),
                limit=limit,
                echo=echo,
                include_claimed=include_claimed or None,
                include_delayed=include_delayed or None,
            )
            yield from page
            if not page or page[-1].marker == marker:
                return
            marker = page[-1].marker

    def page(self, **arguments: Any) -> list[Message]:
        """One page of messages, with the arguments of `message_list`."""
        return self.read_page(self.call('message_list', **arguments), arguments.get('marker'))

    def read_page(self, body: Mapping[str, Any], before: str | None) -> list[Message]:
        """The messages of a page that follows the marker `before`.

        Only the last has a marker of its own for sure: the page's. Where that begins with its id,
        the others' markers are their ids with the same end; else who has got a part of the page has
        to begin again before it.
        """
        found = body['messages']
        if not found:
            return []
        last = body.get('marker') or found[-1]['id']
        is_id = last.startswith(found[-1]['id'])
        addition = last[len(found[-1]['id']) :]
        markers = [one['id'] + addition if is_id else before for one in found[:-1]]
        return [
            Message(self, one, marker) for one, marker in zip(found, [*markers, last], strict=True)
        ]

    def get(self, message_id: str) -> Message:
        """One message; raises NotFound."""
        return Message(self, self.call('message_get', message_id=message_id)['messages'])

    def get_messages(self, message_ids: Sequence[str]) -> list[Message]:
        """Messages by their ids; those that are gone are left out."""
        found = self.call('message_get_many', message_ids=list(message_ids))['messages']
        return [Message(self, one) for one in found]

    def delete_message(self, message_id: str, claim_id: str | None = None) -> None:
        """Delete one message, a claimed one by its claim's id."""
        self.call('message_delete', message_id=message_id, claim_id=claim_id)

    def delete_messages(
        self, message_ids: Sequence[str], claim_ids: Sequence[str] | None = None
    ) -> None:
        """Delete messages by their ids."""
        claims = None if claim_ids is None else list(claim_ids)
        self.call('message_delete_many', message_ids=list(message_ids), claim_ids=claims)

    def pop(self, count: int = 1) -> list[Message]:
        """Take messages from the front: they are deleted as they are read."""
        popped = self.call('message_delete_many', pop=count)['messages']
        return [Message(self, one) for one in popped]

    def subscribe(
        self,
        marker: str | None = None,
        *,
        buffer: int = DEFAULT_BUFFER_MESSAGES,
        on_restart: Callable[[], None] | None = None,
    ) -> Subscription:
        """Get each message once and in order, claimed ones too: pushed, or polled.

        marker: '' begins with the oldest message, None with what is posted from now on, and any
        other after that message. buffer: how many messages may wait here to be taken. on_restart:
        called when it begins again with the oldest message, since the server's store is another
        one by now.
        """
        return Subscription(self, marker, buffer, on_restart)

    def notify(
        self,
        uri: str,
        *,
        ttl: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Have the server tell a URI (http, https, mailto, trust+...) of each message posted.

        The id of the subscription that this makes; raises Conflict where there is one already.
        """
        created = self.call('subscription_create', subscriber=uri, ttl=ttl, options=options)
        return str(created['subscription_id'])

    def subscriptions(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The subscriptions of URIs, as the server describes them."""
        marker = None
        while True:
            page = self.call('subscription_list', marker=marker, limit=limit)
            yield from page['subscriptions']
            if not page['subscriptions'] or not page.get('marker') or page['marker'] == marker:
                return
            marker = page['marker']

    def unsubscribe(self, subscription_id: str) -> None:
        """End the subscription of a URI."""
        self.call('subscription_delete', subscription_id=subscription_id)


class Queue(Source):
    """A queue, whether it exists or not; `Client.queue` gives it."""

    kind = 'queue'

    def share(
        self,
        *,
        paths: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        expires: str | None = None,
    ) -> dict[str, Any]:
        """A pre-signed URL, with which others can use the queue without a token."""
        signed: dict[str, Any] = self.call(
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
    ) -> Claim:
        """Claim the oldest free messages; the claim is empty where there are none.

        ttl: how long the claim holds, in seconds, 60 or more. grace: how long its messages live
        after it has ended, in seconds, 60 or more. wait: for how many seconds to wait if the queue
        is empty.
        """
        deadline = time.monotonic() + wait
        pace = Pace()
        arguments = self.arguments(limit=limit, ttl=ttl, grace=grace)
        while True:
            left = max(deadline - time.monotonic(), 0)
            body, waited = self.client.perform_waiting('claim_create', arguments, left)
            claim = self.read_claim(body)
            left = deadline - time.monotonic()
            if claim.messages or left <= 0:
                return claim
            if not waited:
                time.sleep(min(pace.pause(), left))

    def read_claim(self, body: Mapping[str, Any]) -> Claim:
        """The claim in what `claim_create` was answered with."""
        found = body.get('messages') or []
        messages = [Message(self, {**one, 'claim_id': body['claim_id']}) for one in found]
        return Claim(self, body.get('claim_id'), messages)

    def renew_claim(self, claim_id: str, ttl: int | None = None, grace: int | None = None) -> None:
        """Let a claim live for `ttl` seconds from now; raises NotFound where it has expired."""
        self.call('claim_update', claim_id=claim_id, ttl=ttl, grace=grace)

    def release_claim(self, claim_id: str) -> None:
        """Give a claim's messages back; one that does not exist is as good as released."""
        self.call('claim_delete', claim_id=claim_id)

    def consume(
        self, *, credit: int = 10, ttl: int | None = None, grace: int | None = None
    ) -> Consumer:
        """Work on the messages: each is leased to the consumer until it is settled.

        credit: how many may be unsettled at a time. ttl, grace: of the leases, in seconds, 60 or
        more; they are renewed as long as the consumer lives.
        """
        return Consumer(self, credit, ttl, grace)


class Topic(Source):
    """A topic: a queue without claims and consumers."""

    kind = 'topic'

    def action(self, action: str) -> str:
        if action.startswith('queue_'):
            return action.replace('queue_', 'topic_')
        return f'topic_{action}'
