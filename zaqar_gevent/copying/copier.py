"""Copies the records of one store to another, in batches, and counts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from zaqar_gevent.api.push import is_internal
from zaqar_gevent.storage.records import MessageRecord, QueueRecord, ReadableStore, WritableStore

BATCH = 200
"""Messages that are written in one transaction, at most."""

BATCH_BYTES = 1024 * 1024
"""About how many bytes of bodies are written in one transaction, at most."""


class SameStore(ValueError):
    """The source and the target are the same store."""

    def __init__(self) -> None:
        super().__init__('the source and the target are the same store')


class RefusedQueues(ValueError):
    """The target cannot keep queues of these names. reasons: by queue."""

    def __init__(self, reasons: dict[str, str]) -> None:
        told = '\n'.join(f'  {queue}: {reason}' for queue, reason in reasons.items())
        super().__init__(
            f'nothing was copied, since the target cannot keep these names:\n{told}\n'
            'Leave them out with --skip-refused'
        )


@dataclasses.dataclass
class Counts:
    """Counts of the records that were read and written.

    messages: read. added: of these, the ones that the target did not have. claimed: of these, the
    ones that a claim holds. delayed: of these, the ones that are not visible yet.
    """

    queues: int = 0
    topics: int = 0
    messages: int = 0
    added: int = 0
    claimed: int = 0
    delayed: int = 0
    subscriptions: int = 0
    pools: int = 0
    flavors: int = 0
    places: int = 0
    skipped: int = 0


def copy(
    source: ReadableStore,
    target: WritableStore,
    progress: Callable[[Counts], None] | None = None,
    *,
    skip_refused: bool = False,
) -> Counts:
    """Copy everything; records that an earlier copy left in the target stay as they are.

    progress: called after each batch. skip_refused: leave out queues whose names the target cannot
    keep.

    Raises `SameStore`, `RefusedQueues`, and what the stores raise.
    """
    if source.kind == target.kind and source.identity == target.identity:
        raise SameStore
    refused = _find_refused(source, target)
    if refused and not skip_refused:
        raise RefusedQueues(refused)
    counts = Counts(skipped=len(refused))
    keep_ids = source.kind == target.kind and target.can_keep_ids
    _copy_places(source, target, counts)
    copied: set[tuple[str, str]] = set()
    for queue in source.read_queues():
        if _name(queue) in refused:
            continue
        target.write_queue(queue)
        if queue.kind == 'topic':
            counts.topics += 1
        else:
            counts.queues += 1
        # A queue and a topic of one name share their messages and subscriptions.
        if (queue.project, queue.name) in copied:
            continue
        copied.add((queue.project, queue.name))
        for subscription in source.read_subscriptions(queue):
            # Those of connections end with them.
            if not is_internal(subscription.subscriber):
                target.write_subscription(subscription, keep_ids=keep_ids)
                counts.subscriptions += 1
        _copy_messages(source, target, queue, counts, progress, keep_ids=keep_ids)
    return counts


def _copy_places(source: ReadableStore, target: WritableStore, counts: Counts) -> None:
    for pool in source.read_pools():
        target.write_pool(pool)
        counts.pools += 1
    for flavor in source.read_flavors():
        target.write_flavor(flavor)
        counts.flavors += 1
    for place in source.read_places():
        target.write_place(place)
        counts.places += 1


def _find_refused(source: ReadableStore, target: WritableStore) -> dict[str, str]:
    """The queues whose names the target cannot keep, and why."""
    refused = {}
    for queue in source.read_queues():
        reason = target.refuses(queue)
        if reason is not None:
            refused[_name(queue)] = reason
    return refused


def _name(queue: QueueRecord) -> str:
    return f'{queue.kind} {queue.name!r} of project {queue.project!r}'


def _copy_messages(
    source: ReadableStore,
    target: WritableStore,
    queue: QueueRecord,
    counts: Counts,
    progress: Callable[[Counts], None] | None,
    *,
    keep_ids: bool,
) -> None:
    for batch in _batch(source.read_messages(queue)):
        counts.added += target.write_messages(queue, batch, keep_ids=keep_ids)
        counts.messages += len(batch)
        counts.claimed += sum(one.claim is not None for one in batch)
        counts.delayed += sum(one.due > 0 for one in batch)
        if progress is not None:
            progress(counts)


def _batch(messages: Iterable[MessageRecord]) -> Iterator[list[MessageRecord]]:
    batch: list[MessageRecord] = []
    size = 0
    for one in messages:
        batch.append(one)
        size += one.body.size
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
