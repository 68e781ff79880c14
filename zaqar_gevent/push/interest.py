"""This process as a subscriber of a queue, so that others tell it of news."""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING

import gevent

from zaqar_gevent.push.workers import HIDDEN, token_in

if TYPE_CHECKING:
    from zaqar_gevent.push.feed import Feed
    from zaqar_gevent.push.push_hub import PushHub

INTEREST_SECONDS = 120
"""The time to live of the subscription, which is renewed while somebody waits."""


class Interest:
    """This process as a subscriber, for those who wait for news of a queue without subscribing.

    Its row in the store is there for other processes to find; it is left to expire when nobody has
    waited for some time.
    """

    def __init__(self, push_hub: PushHub, feed: Feed) -> None:
        self.name = HIDDEN + push_hub.process + secrets.token_hex(8)
        self._push_hub = push_hub
        self._feed = feed
        self._url = ''
        self._renew_at = 0.0
        push_hub.register(self)

    def renew(self) -> None:
        """Somebody waits."""
        now = time.monotonic()
        if now < self._renew_at:
            return
        is_new = not self._renew_at
        self._renew_at = now + INTEREST_SECONDS / 2
        self._url = self._push_hub.url_of(self.name, self._feed.source)
        self._push_hub.show_interest(self._feed.source, self._url)
        if is_new:
            self._push_hub.look_again(self._feed)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._feed.is_waited_for

    def news(self, token: str, queue_name: str, expected: int) -> bool:
        """There is news of the queue; False where it is not this one, or the token is wrong."""
        own = token_in(self._url)
        if queue_name != self._feed.source.name or not hmac.compare_digest(
            own.encode(), token.encode()
        ):
            return False
        self._feed.wake(expected)
        return True

    def attend(self, now: float, *, has_stepped: bool = False) -> None:
        """Wait on while somebody does; `now` is of `time.monotonic`.

        has_stepped: whether the wall clock has.
        """
        if has_stepped:
            self._renew_at = min(self._renew_at, now)
        if self._feed.is_waited_for:
            if now >= self._renew_at:
                gevent.spawn(self.renew)
        elif now >= self._renew_at + INTEREST_SECONDS / 2:
            self._push_hub.lose_interest(self, self._feed.source)
