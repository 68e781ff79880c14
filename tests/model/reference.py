"""The model: what queues, messages, leases and dead letters do, in memory and in plain Python.

A test passes the time in, in whole seconds; nothing here reads a clock.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
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


@dataclasses.dataclass
class Redrive:
    """A redrive that is not over. last: the last position that it moves."""

    id: str
    queue: str
    target: str | None
    limit: int | None
    last: int


def meets(document: dict[str, Any], attributes: dict[str, str] | None) -> bool:
    """Whether a message with these attributes meets a filter."""
    for name, wanted in document.items():
        value = (attributes or {}).get(name)
        match wanted:
            case {'prefix': text}:
                is_met = value is not None and value[: len(text)] == text
            case {'exists': is_there}:
                is_met = (value is not None) == is_there
            case _:
                is_met = value is not None and value in (
                    [wanted] if isinstance(wanted, str) else wanted
                )
        if not is_met:
            return False
    return True


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
    """A queue. has_unseen_due: whether messages have become due that no list has shown yet.

    served: for each group that waits for its turn, how many messages of each other group have been
    taken since it waits.
    """

    settings: Settings
    messages: dict[str, Message] = dataclasses.field(default_factory=dict)
    has_unseen_due: bool = False
    served: dict[str | None, Counter[str | None]] = dataclasses.field(default_factory=dict)


class Model:
    """All queues of a project, at a time that only goes forward.

    whole_seconds: whether a scheduled message counts as posted at the next whole second.
    """

    def __init__(self, now: int, whole_seconds: bool = False) -> None:
        self.now = now
        self._whole_seconds = whole_seconds
        self.queues: dict[str, Queue] = {}
        self.redrives: list[Redrive] = []
        self.subscriptions: list[int] = []
        """When each ends."""
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

    def take_turns(self, name: str, taken: list[Message]) -> str | None:
        """Look whether `taken` comes from the groups of a fair queue in turn; what is wrong.

        A group that waits sees each other group served at most once.
        """
        queue = self.queues[name]
        claimable = self.claimable(name)
        counts = Counter(one.group for one in taken)
        for group, count in counts.items():
            first = [one for one in claimable if one.group == group][:count]
            if {one.id for one in first} != {one.id for one in taken if one.group == group}:
                return f'of the group {group} others were taken than the first {count}'
        for group, total in Counter(one.group for one in claimable).items():
            if counts[group] == total:
                queue.served.pop(group, None)
                continue
            # It has messages that were not taken.
            if counts[group]:
                queue.served[group] = Counter()
            served = queue.served.setdefault(group, Counter())
            for other, count in counts.items():
                if other != group:
                    if served[other] + count > counts[group] + 1:
                        return f'the group {other} was served twice while {group} waited'
                    served[other] += count - counts[group]
        return None

    def forget_turns(self) -> None:
        """Let groups that have nothing to be claimed wait no more."""
        for name, queue in self.queues.items():
            if queue.served:
                waiting = {one.group for one in self.claimable(name)}
                for group in queue.served.keys() - waiting:
                    del queue.served[group]

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
        if message.expires < message.lease.until + grace:
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

    def begin_redrive(
        self, redrive_id: str, queue: str, target: str | None, limit: int | None
    ) -> None:
        self.redrives.append(Redrive(redrive_id, queue, target, limit, self._last_position))

    def plan_redrive(self, redrive: Redrive) -> tuple[list[tuple[Message, str]], int]:
        """The messages that a redrive moves, each with its target; and how many it leaves."""
        moving: list[tuple[Message, str]] = []
        left = 0
        for message in self.free(redrive.queue):
            if message.position > redrive.last or len(moving) == redrive.limit:
                break
            target = redrive.target
            if target is None and message.dead_letter is not None:
                target = message.dead_letter['queue']
            if target is None or target == redrive.queue:
                left += 1
            else:
                moving.append((message, target))
        return moving, left

    def redrive(
        self, redrive: Redrive, message: Message, target: str, new_id: str, age: int
    ) -> None:
        """Move a message to the end of another queue, where it has another id."""
        del self.queues[redrive.queue].messages[message.id]
        ttl = message.dead_letter['ttl'] if message.dead_letter else message.ttl
        self.queues[target].messages[new_id] = dataclasses.replace(
            message,
            id=new_id,
            ttl=ttl,
            expires=self.now - age + ttl,
            position=self._next_position(),
            claim_count=0,
            dead_letter=None,
        )

    def usage(self, size_of: Callable[[Message], int]) -> tuple[int, int]:
        """How many subscriptions there are, and the bytes of all messages."""
        held = sum(end > self.now for end in self.subscriptions)
        sizes = (size_of(one) for queue in self.queues.values() for one in queue.messages.values())
        return held, sum(sizes)

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
            'ttl': message.ttl,
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
