"""The model: what queues, messages, leases and dead letters do, in memory and in plain Python.

A test passes the time in, in whole seconds; nothing here reads a clock.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from zaqar_gevent.retry_delays import RetryDelay


@dataclasses.dataclass
class Lease:
    """What holds a message: the id of the claim, until when, and the retry delay of its queue."""

    claim: str
    until: int
    retry: RetryDelay | None


@dataclasses.dataclass
class Message:
    """A message.

    position: where it stands among the visible ones. due: when it becomes visible for the first
    time; None once it has. hidden_until: when its retry is due.
    """

    id: str
    body: str
    client: str
    ttl: int
    expires: float
    position: int
    due: float | None = None
    lease: Lease | None = None
    hidden_until: int = 0
    claim_count: int = 0
    dead_letter: dict[str, Any] | None = None
    attributes: dict[str, str] | None = None
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a queue."""

    dead_letter_queue: str | None = None
    max_claim_count: int | None = None
    dead_letter_ttl: int | None = None
    retry: RetryDelay | None = None
    ordered_groups: bool = False
    fair_groups: bool = False

    def metadata(self) -> dict[str, Any]:
        """The settings as the metadata of a queue."""
        retry = self.retry and {
            'initial': self.retry.initial,
            'factor': self.retry.factor,
            'max': self.retry.max,
        }
        named = {
            '_dead_letter_queue': self.dead_letter_queue,
            '_max_claim_count': self.max_claim_count,
            '_dead_letter_queue_messages_ttl': self.dead_letter_ttl,
            '_retry_delay': retry,
            '_ordered_groups': self.ordered_groups or None,
            '_fair_groups': self.fair_groups or None,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclasses.dataclass
class Queue:
    """A queue. has_unseen_due: whether messages have become due that no list has shown yet."""

    settings: Settings
    messages: dict[str, Message] = dataclasses.field(default_factory=dict)
    has_unseen_due: bool = False


class Model:
    """All queues of a project, at a time that only goes forward.

    whole_seconds: whether a scheduled message counts as posted at the next whole second.
    """

    def __init__(self, now: int, whole_seconds: bool = False) -> None:
        self.now = now
        self._whole_seconds = whole_seconds
        self.queues: dict[str, Queue] = {}
        self._last_position = 0

    def create(self, name: str, settings: Settings) -> None:
        self.queues[name] = Queue(settings)

    def pass_time(self, seconds: int) -> None:
        """Let leases end, messages expire, and delays be over."""
        self.now += seconds
        for queue in self.queues.values():
            for message in queue.messages.values():
                self._end_lease(message)
            self._drop_expired(queue)
            due = [one for one in queue.messages.values() if one.due and one.due <= self.now]
            for message in sorted(due, key=lambda one: (one.due, one.position)):
                message.due = None
                message.position = self._next_position()
                queue.has_unseen_due = True

    def _end_lease(self, message: Message) -> None:
        lease = message.lease
        if lease is not None and lease.until <= self.now:
            message.lease = None
            if lease.retry is not None:
                delay = lease.retry.after(message.claim_count)
                message.hidden_until = lease.until + int(delay)

    def _drop_expired(self, queue: Queue) -> None:
        for message in list(queue.messages.values()):
            if message.expires <= self.now:
                del queue.messages[message.id]

    def _next_position(self) -> int:
        self._last_position += 1
        return self._last_position

    def post(
        self,
        name: str,
        message_id: str,
        body: str,
        client: str,
        *,
        ttl: int,
        delay: float = 0,
        is_scheduled: bool = False,
        attributes: dict[str, str] | None = None,
        group: str | None = None,
    ) -> None:
        """Add a message. is_scheduled: whether its TTL runs from when it is due."""
        begins = self.now + delay if is_scheduled else self.now
        if self._whole_seconds:
            begins = math.ceil(begins)
        self.queues[name].messages[message_id] = Message(
            message_id,
            body,
            client,
            ttl,
            begins + ttl,
            self._next_position(),
            due=self.now + delay if delay else None,
            attributes=attributes,
            group=group,
        )

    def in_order(self, name: str) -> list[Message]:
        """All messages of a queue by position: delayed ones as if they were not delayed."""
        return sorted(self.queues[name].messages.values(), key=lambda one: one.position)

    def visible(self, name: str) -> list[Message]:
        """The messages that are not delayed, claimed or not."""
        return [one for one in self.in_order(name) if not one.due and one.hidden_until <= self.now]

    def free(self, name: str) -> list[Message]:
        """The messages that can be claimed."""
        return [one for one in self.visible(name) if one.lease is None]

    def claimable(self, name: str) -> list[Message]:
        """The free messages that no other of their groups holds up."""
        free = self.free(name)
        if not self.queues[name].settings.ordered_groups:
            return free
        held_up = {
            one.group
            for one in self.queues[name].messages.values()
            if not one.due and (one.lease is not None or one.hidden_until > self.now)
        }
        return [one for one in free if one.group is None or one.group not in held_up]

    def held(self, name: str, claim: str) -> list[Message]:
        """The messages that a claim holds."""
        return [one for one in self.in_order(name) if one.lease and one.lease.claim == claim]

    def claims(self, name: str) -> list[str]:
        """The claims that hold something, those of the first message first."""
        held = [one.lease.claim for one in self.in_order(name) if one.lease]
        return list(dict.fromkeys(held))

    def find_claimable(self, name: str, limit: int) -> tuple[list[Message], list[Message]]:
        """What a claim gets, and what it moves to the dead letter queue on the way."""
        settings = self.queues[name].settings
        taken: list[Message] = []
        exhausted: list[Message] = []
        most = settings.max_claim_count if settings.dead_letter_queue else None
        for message in self.claimable(name):
            if len(taken) == limit:
                break
            if most is not None and message.claim_count >= most:
                exhausted.append(message)
            else:
                taken.append(message)
        return taken, exhausted

    def take(self, name: str, message: Message, claim: str, ttl: int, grace: int) -> None:
        """Let a claim hold a free message."""
        message.claim_count += 1
        message.lease = Lease(claim, self.now + ttl, self.queues[name].settings.retry)
        self._live_until_lease_ends(message, ttl, grace)

    def extend(self, message: Message, ttl: int, grace: int) -> None:
        """Let the lease of a held message begin anew."""
        assert message.lease is not None
        message.lease.until = self.now + ttl
        self._live_until_lease_ends(message, ttl, grace)

    def _live_until_lease_ends(self, message: Message, ttl: int, grace: int) -> None:
        assert message.lease is not None
        if message.expires < message.lease.until:
            message.ttl = ttl + grace
            message.expires = message.lease.until + grace

    def release(self, message: Message, delay: int | None) -> None:
        """Give a held message back. delay: None for that of its queue."""
        assert message.lease is not None
        retry, message.lease = message.lease.retry, None
        if delay is None:
            delay = int(retry.after(message.claim_count)) if retry else 0
        message.hidden_until = self.now + delay

    def delete(self, name: str, message: Message) -> None:
        del self.queues[name].messages[message.id]

    def dead_letter(self, name: str, message: Message, new_id: str, reason: str | None) -> None:
        """Move a message to the dead letter queue, where it has another id."""
        settings = self.queues[name].settings
        assert settings.dead_letter_queue is not None
        del self.queues[name].messages[message.id]
        ttl = settings.dead_letter_ttl
        facts = {
            'queue': name,
            'message_id': message.id,
            'claim_count': message.claim_count,
            'reason': reason,
        }
        self.queues[settings.dead_letter_queue].messages[new_id] = dataclasses.replace(
            message,
            id=new_id,
            ttl=ttl or message.ttl,
            expires=self.now + ttl if ttl else message.expires,
            position=self._next_position(),
            lease=None,
            hidden_until=0,
            dead_letter=facts,
        )
