"""The operations of one queue or topic, for whatever works on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from zaqar_gevent.client.aio.message import Claim, Message
from zaqar_gevent.client.aio.requester import Requester
from zaqar_gevent.client.errors import from_answer
from zaqar_gevent.client.links import Answer


class Target:
    """A queue or topic that operations are performed on.

    kind: `queue` or `topic`.
    """

    __slots__ = ('_name_member', 'kind', 'name', 'requester')

    def __init__(self, requester: Requester, kind: str, name: str) -> None:
        self.requester = requester
        self.kind = kind
        self.name = name
        self._name_member = f'{kind}_name'

    def __repr__(self) -> str:
        return f'<{self.kind.capitalize()} {self.name}>'

    async def call(self, action: str, **arguments: Any) -> Any:
        """Perform an operation, by its name for queues; arguments that are None are left out."""
        return (await self.perform(action, **arguments)).body

    async def perform(self, action: str, **arguments: Any) -> Answer:
        """The same, with the status."""
        return await self.requester.perform(self.action(action), self.arguments(**arguments))

    def action(self, action: str) -> str:
        """The name of an operation here, by its name for queues."""
        if self.kind == 'queue':
            return action
        if action.startswith('queue_'):
            return action.replace('queue_', 'topic_')
        return f'topic_{action}'

    def arguments(self, **given: Any) -> dict[str, Any]:
        """The arguments of an operation here, without those that are None."""
        named = {self._name_member: self.name}
        return named | {name: value for name, value in given.items() if value is not None}

    def read_page(self, body: Mapping[str, Any], before: str | None) -> list[Message]:
        """The messages of a page that follows the marker `before`.

        Only the last certainly has a marker of its own: the page's. If that begins with its id, the
        others' markers are their ids with the same end. Otherwise whoever has got a part of the
        page has to begin again before it.
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

    def read_claim(self, body: Mapping[str, Any]) -> Claim:
        """The claim in the answer to `claim_create`."""
        found = body.get('messages') or []
        messages = [Message(self, {**one, 'claim_id': body['claim_id']}) for one in found]
        return Claim(self, body.get('claim_id'), messages)

    async def delete_message(self, message_id: str, claim_id: str | None = None) -> None:
        """Delete one message, a claimed one by its claim's id."""
        await self.call('message_delete', message_id=message_id, claim_id=claim_id)

    async def settle(
        self, action: str, message_id: str, claim_id: str | None, **options: Any
    ) -> None:
        """Release or reject one message of a claim; raises the error of its outcome."""
        entry = {'message_id': message_id, 'claim_id': claim_id, **options}
        given = {name: value for name, value in entry.items() if value is not None}
        [outcome] = (await self.call(f'{action}_many', entries=[given]))['outcomes']
        if outcome['status'] >= 400:
            raise from_answer(outcome['status'], outcome)

    async def renew_claim(
        self, claim_id: str, ttl: int | None = None, grace: int | None = None
    ) -> None:
        """Let a claim live for `ttl` seconds from now; raises NotFound if it has expired."""
        await self.call('claim_update', claim_id=claim_id, ttl=ttl, grace=grace)

    async def release_claim(self, claim_id: str) -> None:
        """Give a claim's messages back; one that does not exist is as good as released."""
        await self.requester.cleanups.complete(
            self.call('claim_delete', claim_id=claim_id), _nothing
        )


async def list_names(
    requester: Requester,
    kind: str,
    marker: str | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> AsyncIterator[str]:
    """The names of the project's queues or topics, page by page."""
    while True:
        options = {'marker': marker, 'limit': limit, 'name': name}
        given = {key: value for key, value in options.items() if value is not None}
        page = (await requester.perform(f'{kind}_list', given)).body or {}
        found = page.get(f'{kind}s') or []
        for one in found:
            yield one['name']
        next_marker = page.get('marker') or (found[-1]['name'] if found else None)
        if not found or next_marker == marker:
            return
        marker = next_marker


async def _nothing(_result: Any) -> None:
    """The undo of a call that needs none."""
