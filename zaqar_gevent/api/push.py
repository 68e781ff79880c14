"""The interface through which operations push messages to clients as they are posted.

The implementation is `zaqar_gevent.push`; the server passes it in.
"""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from zaqar_gevent.api import errors
from zaqar_gevent.api.grants import UNLIMITED, Grant

if TYPE_CHECKING:
    from zaqar_gevent.api.context import Context


INTERNAL_PATH = '/zaqar_gevent/'
"""What the paths of the listener begin with by which the servers of a fleet tell each other."""

CONNECTION = 'websocket:connection'
"""The subscriber, as clients see it, of a subscription whose subscriber is a connection."""


def is_internal(subscriber: str) -> bool:
    """Whether a subscriber's URL is, or pretends to be, that of the listener of a server."""
    try:
        path = urllib.parse.unquote(urllib.parse.urlsplit(subscriber).path)
    except ValueError:
        return False
    return f'/{posixpath.normpath(path).lstrip("/")}/'.startswith(INTERNAL_PATH)


class Source(NamedTuple):
    """The queue or topic that is listened to."""

    project_id: str | None
    name: str


Address = tuple[str, int, str]
"""A process of the fleet: host and port of its listener, and its name; '' if it has none."""


class FrameHead(Protocol):
    """The frame header of a push of `length` bytes."""

    def __call__(self, length: int, *, binary: bool) -> bytes: ...


class Recipient(Protocol):
    """The connection that is pushed to.

    frame_head: where pushes are sent as they are, the same for many clients; None where they are
        changed for each, as by compression.
    """

    @property
    def frame_head(self) -> FrameHead | None: ...

    @property
    def is_open(self) -> bool:
        """Whether what is sent still reaches the client."""
        ...

    def is_gone(self) -> bool:
        """Whether the client has hung up, as far as can be told without waiting."""
        ...

    def push(self, payload: bytes, *, binary: bool, kind: str, grant: Grant = UNLIMITED) -> None:
        """Send a push, after the answers to the requests that are performed; does not wait.

        It is not sent when `grant` has ended meanwhile.
        """
        ...

    def push_frames(self, frames: bytes, count: int, size: int, *, binary: bool) -> bool:
        """Send `count` messages, each behind its `frame_head`; whether they are sent.

        They are not where anything is to be sent before them, or the client is gone. `size` is that
        of the messages without the heads.
        """
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """While this greenlet's request waits, pushes do not wait for its answer."""
        ...

    @property
    def is_answering(self) -> bool:
        """Whether pushes wait for the answer to a request, not for the client."""
        ...

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes more may wait to be sent."""
        ...

    def wait_for_room(self) -> None:
        """Wait until nothing waits to be sent any more, or the connection has ended."""
        ...

    def give_up(self) -> None:
        """Close the connection of a client that does not take what it is sent."""
        ...


class Consumer(Protocol):
    """Gets messages of a queue, each leased to it until it is acknowledged or released."""

    def acknowledge(self, message_ids: list[str]) -> None:
        """Delete messages; raises `errors.NotFound` where one is not leased to this consumer."""
        ...

    @property
    def source(self) -> Source:
        """The queue."""
        ...

    def release(self, message_ids: list[str], delay: float | None = None) -> None:
        """Give messages back to the queue, claimable after `delay` seconds or the queue's delay.

        Raises `errors.NotFound` likewise.
        """
        ...

    def reject(self, message_ids: list[str], reason: str | None) -> None:
        """Move messages to the dead letter queue; raises `errors.NotFound` likewise."""
        ...

    def stop(self) -> None:
        """Give all messages back, those that are being claimed as well, and claim no more."""
        ...


class News(Protocol):
    """A wait for news of a queue."""

    def wait(self, timeout: float) -> object:
        """Wait at most `timeout` seconds."""
        ...

    def clear(self) -> object:
        """Wait for the next."""
        ...

    def set(self) -> None:
        """End a wait."""
        ...


class Endpoint(Protocol):
    """The connection that a request came over, as a subscriber.

    is_open: whether an answer still reaches the client, as far as is known.
    """

    @property
    def is_open(self) -> bool: ...

    def is_gone(self) -> bool:
        """Whether the client has hung up, as far as can be told without waiting."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """While this greenlet's request waits, pushes do not wait for its answer.

        What the request has done before must not cause pushes.
        """
        ...

    def attach(self, recipient: Recipient) -> None:
        """The connection itself."""
        ...

    def url_for(self, source: Source) -> str:
        """The URL under which other servers tell it of a queue, signed and so secret.

        Raises `errors.TooMany` where there are as many subscriptions as may be.
        """
        ...

    def close(self) -> None:
        """The connection has ended, and its subscriptions with it."""
        ...

    def now(self, source: Source) -> str | None:
        """The marker of the newest message; None where there is none."""
        ...

    def verify(self, source: Source, marker: str) -> None:
        """Raise `MarkerNotGiven` for a marker that the store cannot have given."""
        ...

    def subscribe(
        self,
        source: Source,
        subscription_id: str,
        marker: str | None,
        *,
        ttl: int,
        renewed: bool,
        options: dict[str, Any],
        binary: bool,
        extended: bool,
        grant: Grant,
    ) -> None:
        """Push what is posted after `marker`, once the answer to the request has been sent.

        ttl: of the subscription, in seconds; where it is `renewed`, it does not end while the
            connection lives. options: as given. binary: whether to push in MsgPack. extended:
            whether with what upstream's messages do not have. grant: what it ends with.

        Raises `errors.Forbidden` where the grant has ended.
        """
        ...

    def consume(
        self, source: Source, lease: dict[str, int], *, credit: int, binary: bool, grant: Grant
    ) -> str:
        """Claim messages as they come and push them; the id of the consumer.

        lease: `ttl` and `grace` of the claims, in seconds; they are renewed until the messages are
            settled. credit: how many messages may be unsettled at a time. grant: it ends with this.

        Raises `errors.BadRequest` where the envelope has no form for it, `errors.TooMany` where
        there are as many as may be, and `errors.Forbidden` where the grant has ended.
        """
        ...

    def consumer(self, consumer_id: str, project_id: str | None) -> Consumer:
        """A consumer of this connection and project; raises `errors.NotFound`."""
        ...

    def resume(self, subscription_id: str, project_id: str | None, marker: str | None) -> None:
        """Go on with a paused subscription, after `marker` or where it was paused.

        Raises `errors.NotFound` for a subscription that is not of this connection and project.
        """
        ...

    def end_over(self) -> None:
        """End the subscriptions and consumers whose grant has ended, and tell the client."""
        ...


class PushService(Protocol):
    """Notifies connected clients.

    is_draining: whether the server is stopping, and nobody should wait any more.
    """

    is_draining: bool

    def posted(self, source: Source) -> None:
        """Messages were posted by this process."""
        ...

    def tell_workers(
        self, source: Source, subscriptions: Mapping[Address, list[dict[str, Any]]]
    ) -> None:
        """Tell other workers of the same.

        subscriptions: those of each worker's connections, by the worker's address; this worker's
            own are passed over.
        """
        ...

    def ended(self, source: Source, subscription_id: str, by: object = None) -> None:
        """A subscription of a queue was deleted; its client is told unless `by` is its endpoint."""
        ...

    def row_of(self, source: Source, subscription_id: str) -> str:
        """The id that a subscription of a connected client has in the store by now."""
        ...

    def listening(self, source: Source, *, takes: bool = False) -> AbstractContextManager[News]:
        """Be told of news of a queue, whichever process it comes from.

        takes: whether to be woken one after the other, since each takes what it finds.
        """
        ...

    def is_hidden(self, source: Source, subscriber: str) -> bool:
        """Whether a subscriber of a queue is a process of the fleet which listens for itself."""
        ...

    def worker_of(self, source: Source, subscriber: str) -> Address | None:
        """The worker whose connection a subscriber of a queue is; None for any other."""
        ...


def connected(context: Context) -> Endpoint:
    """The connection that a request came over; raises `errors.BadRequest` where it did not."""
    if context.endpoint is None:
        raise errors.BadRequest('This needs a WebSocket connection.')
    return context.endpoint
