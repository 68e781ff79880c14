"""Tokens for the trusts of subscriptions, with which a webhook acts for the user who made it."""

from __future__ import annotations

from typing import Any

from zaqar_gevent.api.ttl_cache import TTLCache
from zaqar_gevent.webhooks.tasks import run

SECONDS = 60.0
"""For how long a token is used again: asking Keystone for each message would load it."""

_tokens: TTLCache[str] = TTLCache(SECONDS)


def token(trust_id: str) -> str:
    """A token for a trust; raises what Keystone's client raises."""
    return _tokens.get(trust_id, lambda: _ask(trust_id))


def _ask(trust_id: str) -> str:
    # It registers options of its own, which is not needed before there is a trust.
    from zaqar.common import auth

    found: Any = run(auth.get_trusted_token, trust_id)
    return str(found)
