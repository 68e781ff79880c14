"""Compares the clock of this process with that of a store that has one."""

from __future__ import annotations

import math

from oslo_config import cfg
from oslo_log import log

LOG = log.getLogger(__name__)

WARN_SECONDS = 1.0
"""A difference above this is logged."""

COMPARE_SECONDS = 60.0
"""How often clocks are compared."""


OPTION = cfg.FloatOpt(
    'max_clock_difference',
    default=5.0,
    min=0.0,
    help='By how many seconds the clock of this server may differ from that of the store. Times of '
    'messages and claims come from the servers: where clocks differ, messages expire too early. '
    'With a larger difference a server does not start, and /healthcheck says that it is not well. '
    'A difference above 1 second is logged. With 0, any difference is allowed.',
)


class Clock:
    """The clock of a store, as far as it differs from ours.

    store: the store as the subject of a sentence. most: a larger difference, in seconds, makes the
        store unfit; 0 allows any.
    """

    def __init__(self, store: str, most: float) -> None:
        self._store = store
        self._most = most
        self._logged = 0.0
        self.ahead = 0.0

    @property
    def is_off(self) -> bool:
        """Whether the clocks differ so much that messages could be lost."""
        return 0 < self._most < abs(self.ahead)

    @property
    def explanation(self) -> str:
        """What is wrong, as the rest of a sentence about the store."""
        direction = 'ahead of' if self.ahead > 0 else 'behind'
        return (
            f'has a clock that is {abs(self.ahead):.1f} s {direction} that of this server. Servers '
            'whose clocks differ lose messages and break claims: a message may expire as soon as '
            'it is posted. Set the clocks right, as by NTP.'
        )

    def compare(self, theirs: float, asked: float, answered: float) -> None:
        """Compare: the store said `theirs` between the moments `asked` and `answered` of our clock.

        All in seconds since 1970. What the way of the answer may explain counts for nothing.
        """
        if answered < asked:
            # Ours has just been set.
            return
        ahead = max(theirs - answered, 0.0) + min(theirs - asked, 0.0)
        if not ahead and answered - asked > WARN_SECONDS:
            # It took so long that this says nothing.
            return
        self.ahead = ahead
        if abs(ahead) <= WARN_SECONDS:
            if self._logged:
                LOG.info('%s has a clock that agrees with that of this server again.', self._store)
            self._logged = 0.0
        elif not self._logged or not math.isclose(ahead, self._logged, abs_tol=WARN_SECONDS):
            LOG.warning('%s %s', self._store, self.explanation)
            self._logged = ahead
