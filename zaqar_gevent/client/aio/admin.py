"""Pools and flavors, which operators manage on a server in admin mode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from zaqar_gevent.client.aio.requester import Requester


class Resources:
    """Resources of a kind, each by its name; documents have the members that the reference says."""

    def __init__(self, requester: Requester, kind: str) -> None:
        self._requester = requester
        self._kind = kind

    async def list(
        self, *, detailed: bool = False, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """All of them, page by page."""
        marker = None
        while True:
            page = await self._call('list', marker=marker, limit=limit, detailed=detailed or None)
            found = page[f'{self._kind}s']
            for one in found:
                yield one
            if not found or not page.get('marker') or page['marker'] == marker:
                return
            marker = page['marker']

    async def get(self, name: str) -> dict[str, Any]:
        """One of them; raises NotFound."""
        found: dict[str, Any] = await self._call('get', name)
        return found

    async def create(self, name: str, **members: Any) -> None:
        """Make one: a pool of `uri` and `weight`, a flavor of `pool_list`."""
        await self._call('create', name, **members)

    async def update(self, name: str, **members: Any) -> dict[str, Any]:
        """Change some members, and get the result."""
        changed: dict[str, Any] = await self._call('update', name, **members)
        return changed

    async def delete(self, name: str) -> None:
        """Delete one."""
        await self._call('delete', name)

    async def _call(self, verb: str, name: str | None = None, **arguments: Any) -> Any:
        given = {key: value for key, value in arguments.items() if value is not None}
        if name is not None:
            given[f'{self._kind}_name'] = name
        answer = await self._requester.perform(f'{self._kind}_{verb}', given)
        return answer.body
