"""Long polling: requests that wait until there is something to be had."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from zaqar_gevent.api import errors
from zaqar_gevent.api.context import Context
from zaqar_gevent.api.push import News, Source

MAX_SECONDS = 20
# For how long a wait may outlive its WebSocket, which it keeps from ending.
_TICK_SECONDS = 1.0

Result = TypeVar('Result')


def wait_for(
    context: Context,
    queue_name: str,
    seconds: float | None,
    attempt: Callable[[], Result],
    succeeded: Callable[[Result], bool],
    *,
    takes: bool = False,
) -> Result:
    """The result of `attempt`, tried whenever there is news of the queue, for at most `seconds`.

    It is tried at once, and once more at the end, since an expired claim makes no news. Without
    `seconds` it is tried only once. For a client that has hung up, or whose grant has ended, it is
    not tried again: it would be given what somebody else can use.

    takes: whether `attempt` takes what it finds. Attempts that take are woken one after the other
        while there are messages; all others are woken at once.

    Raises `errors.BadRequest` for a time that is not allowed, and `errors.TooMany` where as many
    requests of the project wait as may.
    """
    if seconds is not None and not 0 <= seconds <= MAX_SECONDS:
        raise errors.BadRequest(f'The time to wait must be 0 to {MAX_SECONDS} s - at `$.wait`')
    answer_limiter = context.broker.answer_limiter
    with answer_limiter.place(context.project_id) as has_waited:
        if has_waited:
            context.check_present()
        result = attempt()
    push_hub = context.broker.notifier.push_hub
    if not seconds or push_hub is None or succeeded(result):
        return result
    deadline = time.monotonic() + min(seconds, context.grant.seconds_left)
    source = Source(context.project_id, queue_name)
    waits = context.broker.quotas.waits.held(context.project_id)
    with waits, push_hub.listening(source, takes=takes) as news:
        while True:
            news.clear()
            with answer_limiter.place(context.project_id):
                result = attempt()
            left = deadline - time.monotonic()
            if left <= 0 or succeeded(result) or push_hub.is_draining:
                return result
            if not _wait(context, news, deadline):
                return result


def _wait(context: Context, news: News, deadline: float) -> bool:
    """Wait for news, or for the deadline; False when the client is gone, or its grant over."""
    endpoint = context.endpoint
    if endpoint is None:
        news.wait(deadline - time.monotonic())
        return not context.is_abandoned
    with endpoint.waiting():
        while not context.is_abandoned:
            left = deadline - time.monotonic()
            if left <= 0 or news.wait(min(left, _TICK_SECONDS)):
                return not context.is_abandoned
    return False
