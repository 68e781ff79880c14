"""Ids of requests, which are in answers and in the log."""

from __future__ import annotations

import itertools
import os
import random
import re
import uuid
from collections.abc import Mapping
from typing import Any

from oslo_context import context
from oslo_context.context import RequestContext

HEADER = 'X-OpenStack-Request-ID'
"""The header of answers and, for the global request id, of requests."""

_REQUEST_ID = re.compile(r'req-[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}')


def identify_request(environ: Mapping[str, Any]) -> str:
    """Give a request an id; what this greenlet logs from now on has it, too.

    environ: WSGI's; empty where the head of the request cannot be read. A valid id in it is kept
        as the global request id.

    PERF: oslo.middleware does the same by webob at 22 us a request, and makes locations absolute.
    """
    request_id = next(_request_ids)
    sent = environ.get('HTTP_X_OPENSTACK_REQUEST_ID')
    global_id = sent if sent and _REQUEST_ID.fullmatch(sent) else None
    _Context(request_id, global_id)
    return request_id


def get_request_id() -> str:
    """The id of the request that this greenlet answers; one that has none gets one."""
    current = context.get_current()
    return identify_request({}) if current is None else current.request_id


class _RequestIds:
    """Ids that look as oslo.context makes them: a UUID that counts, from a random one.

    PERF: a random one for each takes ten times as long. They need not be hard to guess.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def __next__(self) -> str:
        return f'{self._prefix}{next(self._numbers):012x}'

    def _renew(self) -> None:
        self._prefix = f'req-{str(uuid.uuid4())[:24]}'
        self._numbers = itertools.count(random.getrandbits(40))


_request_ids = _RequestIds()


class _Context(RequestContext):
    """The context of a request in the log: its ids.

    PERF: all else is the class's. oslo.context sets thirty attributes for each.
    """

    def __init__(self, request_id: str, global_id: str | None) -> None:
        self.request_id = request_id
        self.global_request_id = global_id
        self.update_store()


for _name, _value in vars(RequestContext(overwrite=False)).items():
    setattr(_Context, _name, _value)
