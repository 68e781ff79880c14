"""Removing the messages that a queue holds at one moment, while others go on posting to it.

It is done in steps, so that others are served in between, and ends when what was there has been
looked at, however much comes meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from zaqar.storage import base, errors

from zaqar_gevent.storage import drivers, own_drivers

STEP = 100
"""Messages that are looked at in one step."""


def purge(storage: base.DataDriverBase, queue: str, project: str | None) -> None:
    """Remove the messages of a queue that are there now and not claimed, delayed ones included."""
    driver = drivers.find(storage, queue, project)
    if driver is None:
        return
    if isinstance(driver, own_drivers.DataDriver):
        drivers.find_messages(storage, queue, project).purge(queue, project)
    elif drivers.is_redis(driver):
        # Its library is only there if it is used.
        from zaqar_gevent.storage import redis_purge

        redis_purge.purge(driver, queue, project, STEP)
    else:
        _purge_listed(driver, queue, project)


def _purge_listed(driver: base.DataDriverBase, queue: str, project: str | None) -> None:
    """The same with upstream's interface only.

    If somebody else removes the newest message meanwhile, it ends at the first message that is
    certainly younger than the purge; ages are told in whole seconds.
    """
    messages = driver.message_controller
    try:
        newest = messages.first(queue, project=project, sort=-1)['id']
    except (errors.DoesNotExist, errors.QueueIsEmpty):
        return
    began = time.monotonic()
    marker = None
    while True:
        results = messages.list(
            queue,
            project,
            marker=marker,
            limit=STEP,
            echo=True,
            include_claimed=True,
            include_delayed=True,
        )
        page = list(next(results))
        for message in page:
            if message['age'] + 1 < time.monotonic() - began:
                return
            _delete_free(messages, queue, project, message['id'])
            if message['id'] == newest:
                return
        following = next(results, None)
        if not page or following in (None, marker):
            return
        marker = following


def _delete_free(messages: Any, queue: str, project: str | None, message_id: str) -> None:
    # Of a claimed one the store says so.
    with contextlib.suppress(errors.NotPermitted):
        messages.delete(queue, message_id, project=project)
