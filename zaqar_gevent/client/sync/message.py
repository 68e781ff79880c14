# Written by `tox -e genblocking` from client/aio/message.py: change that one.
# fmt: off
"""Messages, and claims on them."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from zaqar_gevent.client.errors import Unsupported

if TYPE_CHECKING:
    from zaqar_gevent.client.sync.target import Target


class Settlement(NamedTuple):
    """The end of a lease: the message is acknowledged (deleted), released, or rejected.

    action: `message_ack`, `message_release` or `message_reject`. delay: before it is delivered
    again, in seconds. reason: why it is rejected.
    """

    action: str
    delay: float | None = None
    reason: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether the message is not delivered again from its queue."""
        return self.action != 'message_release'

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the operation, beside which message."""
        given = {'delay': self.delay, 'reason': self.reason}
        return {name: value for name, value in given.items() if value is not None}


ACK = Settlement('message_ack')

# Settles a message; the flag says whether to wait for the outcome. Gives whether it could be.
Settle = Callable[['Message', Settlement, bool], Any]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


class Message:
    """A message of a queue or topic.

    ttl, age: in seconds. claim_id: of the claim that holds it, if any. attempt: which delivery this
    is, 1 for the first; None if it is not claimed or the server does not count. checksum: of its
    body, if the queue has checksums made. marker: where to go on reading after it, None if the
    server does not say. id is None in what upstream's envelope pushes.

    attributes: texts by name that it was posted with. group: the name of its group, None for none.
    dead_letter: where a dead letter is from:
    `queue`, `message_id` and `claim_count` there, the time `at` which it was moved, and the
    `reason` of the worker, if one gave any; None for other messages.
    """

    __slots__ = (
        *('_settle', '_target', 'age', 'attempt', 'attributes', 'body', 'checksum', 'claim_id'),
        *('dead_letter', 'group', 'id', 'marker', 'ttl'),
    )

    def __init__(
        self,
        target: Target,
        document: Mapping[str, Any],
        marker: str | None = None,
        settle: Settle | None = None,
    ) -> None:
        self._target = target
        self._settle = settle
        self.id: str = document['id']
        self.body: Any = document['body']
        self.ttl: int | None = document.get('ttl')
        self.age: int = document.get('age', 0)
        self.claim_id: str | None = document.get('claim_id')
        self.checksum: str | None = document.get('checksum')
        claims = document.get('claim_count')
        self.attempt: int | None = None if claims is None else claims + 1
        self.attributes: dict[str, str] = document.get('attributes') or {}
        self.group: str | None = document.get('group')
        self.dead_letter: dict[str, Any] | None = document.get('dead_letter')
        self.marker = marker

    def __repr__(self) -> str:
        return f'<Message {self.id} of {self.queue_name}: {_short.repr(self.body)}>'

    @property
    def queue_name(self) -> str:
        """The name of its queue or topic."""
        return self._target.name

    def delete(self) -> None:
        """Delete it; a claimed one by the claim that gave it.

        Raises APIError, for example if it is claimed by somebody else.
        """
        if self._settle is not None:
            self.ack()
            return
        self._target.delete_message(self.id, self.claim_id)

    def ack(self, *, wait: bool = True) -> bool:
        """Acknowledge it: it is dealt with and is deleted.

        wait: whether to wait for the outcome. Without, failures are raised by the consumer's next
        `receive` or by its `close`, as LeaseLost; several acknowledgements then travel together.

        Returns False if a consumer's lease of it was lost before: then it comes again, to this
        consumer or another.
        """
        if self._settle is not None:
            settled: bool = self._settle(self, ACK, wait)
            return settled
        self.delete()
        return True

    def release(self, *, delay: float | None = None) -> bool:
        """Give it back, to be delivered again.

        delay: after how many seconds; left out, as the queue says. A message of a `claim()`, and
        any delay, need a server of this project.

        Returns False if a consumer's lease of it was lost before, so that it is free already.
        """
        return self._give_up(Settlement('message_release', delay=delay))

    def reject(self, reason: str | None = None) -> bool:
        """Move it to the dead letter queue at once; needs a server of this project.

        Returns False if a consumer's lease of it was lost before. Raises BadRequest if the queue
        has no dead letter queue.
        """
        return self._give_up(Settlement('message_reject', reason=reason))

    def _give_up(self, settlement: Settlement) -> bool:
        if self._settle is not None:
            settled: bool = self._settle(self, settlement, True)
            return settled
        if self.claim_id is None:
            raise Unsupported('Only a claimed message can be released or rejected.')
        self._target.settle(settlement.action, self.id, self.claim_id, **settlement.options)
        return True


class Claim:
    """A lease on messages; if there were none, `id` is None and it is empty.

    As a context manager it gives back at its end what has not been deleted.
    """

    def __init__(self, target: Target, claim_id: str | None, messages: list[Message]) -> None:
        self._target = target
        self.id = claim_id if messages else None
        self.messages = messages

    def __repr__(self) -> str:
        return f'<Claim {self.id} of {self._target.name}: {len(self.messages)} messages>'

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def renew(self, ttl: int | None = None, grace: int | None = None) -> None:
        """Let the claim live for `ttl` seconds from now; without, for the server's default.

        Raises NotFound if it has expired.
        """
        if self.id is not None:
            self._target.renew_claim(self.id, ttl, grace)

    def release(self) -> None:
        """Give the messages back that have not been deleted."""
        if self.id is not None:
            self._target.release_claim(self.id)
