"""Messages, and claims on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zaqar_gevent.client.errors import Unsupported

if TYPE_CHECKING:
    from zaqar_gevent.client.queue import Queue, Source

# Settles a message: by its deletion if True, else by giving it back; whether it could be.
Settle = Callable[['Message', bool], bool]


class Message:
    """A message of a queue or topic.

    ttl, age: in seconds. claim_id: of the claim that holds it, if one does. checksum: of its body,
    if the queue has them made. marker: where to go on reading after it, None where the server does
    not say. id is None in what upstream's envelope pushes.
    """

    __slots__ = (
        *('_settle', '_source', 'age', 'body', 'checksum', 'claim_id', 'id', 'marker'),
        *('queue_name', 'ttl'),
    )

    def __init__(
        self,
        source: Source,
        document: Mapping[str, Any],
        marker: str | None = None,
        settle: Settle | None = None,
    ) -> None:
        self._source = source
        self._settle = settle
        self.id: str = document['id']
        self.body: Any = document['body']
        self.ttl: int | None = document.get('ttl')
        self.age: int = document.get('age', 0)
        self.claim_id: str | None = document.get('claim_id')
        self.checksum: str | None = document.get('checksum')
        self.marker = marker
        self.queue_name: str = source.name

    def __repr__(self) -> str:
        return f'<Message {self.id} of {self.queue_name}>'

    def delete(self) -> None:
        """Delete it; a claimed one by the claim that this is known by.

        Raises APIError, as where it is claimed by somebody else.
        """
        if self._settle is not None:
            self.ack()
            return
        self._source.delete_message(self.id, self.claim_id)

    def ack(self) -> bool:
        """It is dealt with: delete it.

        False where a consumer's lease of it was lost before: then it comes again, to this consumer
        or another.
        """
        if self._settle is not None:
            return self._settle(self, True)
        self.delete()
        return True

    def release(self) -> bool:
        """Give it back, for any consumer to get; only of a consumer's messages.

        False where its lease was lost before, so that it is free already.
        """
        if self._settle is None:
            raise Unsupported('Only a message that a consumer has got can be given back.')
        return self._settle(self, False)


class Claim:
    """A lease on messages; with none to be had, `id` is None and there are none in it.

    As a context manager it gives back at its end what has not been deleted.
    """

    def __init__(self, queue: Queue, claim_id: str | None, messages: list[Message]) -> None:
        self._queue = queue
        self.id = claim_id if messages else None
        self.messages = messages

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def renew(self, ttl: int | None = None, grace: int | None = None) -> None:
        """Let the claim live for `ttl` seconds from now; left out, they are the server's default.

        Raises NotFound where it has expired.
        """
        if self.id is not None:
            self._queue.renew_claim(self.id, ttl, grace)

    def release(self) -> None:
        """Give the messages back that have not been deleted."""
        if self.id is not None:
            self._queue.release_claim(self.id)
