"""The kinds of calls: each has a connection of its own, opened when it is needed."""

from __future__ import annotations

from zaqar_gevent.storage.postgresql import groups, merging, posting
from zaqar_gevent.storage.postgresql.calls import Kind

POSTS = Kind('posts', merge=posting.merge)
"""They give positions, and wait for the locks of queues."""

WRITES = Kind('writes', merge=merging.merge)
"""They wait for nothing."""

STEPS = Kind('steps', patience=6, depth=1)
"""Housekeeping, and what waits for locks or changes much."""

READS = Kind('reads')

SCANS = Kind('scans', patience=18, depth=1)
"""Reads that may take long."""

GROUPS = Kind('groups', patience=6, merge=merging.merge, begin=groups.lock)
"""Claims of queues with groups: they wait for the locks of these first."""

KINDS = (POSTS, WRITES, READS, STEPS, SCANS, GROUPS)
