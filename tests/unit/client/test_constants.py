"""The two clients fall back, and come back, at the same times."""

from __future__ import annotations

import pathlib
import re

import pytest

import zaqar_gevent.client
from zaqar_gevent.api import waiting
from zaqar_gevent.client import fallback

SOURCE = pathlib.Path(zaqar_gevent.client.__file__).with_name('js') / 'zaqar.js'
_CONSTANT = re.compile(r'^export const ([A-Z][A-Z_]+) = ([\d.]+);$', re.MULTILINE)
IN_JAVASCRIPT = {name: float(value) for name, value in _CONSTANT.findall(SOURCE.read_text())}

# JavaScript waits for a connection to last before it takes it for good, where Python counts those
# that were lost; and it cannot see pings, so it asks whether a silent server is still there.
ONLY_IN_JAVASCRIPT = {'GOOD_SECONDS', 'KEEPALIVE_SECONDS', 'KEEPALIVE_TIMEOUT_SECONDS'}


def in_python() -> dict[str, float]:
    """The constants of the same kind, by name."""
    return {
        name: value
        for place in (fallback, fallback.Pace)
        for name, value in vars(place).items()
        if name.isupper() and isinstance(value, int | float)
    }


@pytest.mark.parametrize('name', sorted(in_python().keys() & IN_JAVASCRIPT.keys()))
def test_a_constant_is_the_same_in_both(name: str) -> None:
    if name == 'MAX_WAIT_SECONDS':
        # Only JavaScript can end a request under way, so there it may take all the time there is.
        assert IN_JAVASCRIPT[name] == waiting.MAX_SECONDS
        assert in_python()[name] < waiting.MAX_SECONDS
    else:
        assert IN_JAVASCRIPT[name] == in_python()[name]


def test_no_constant_of_the_javascript_client_is_left_out() -> None:
    assert len(IN_JAVASCRIPT) >= 11
    assert IN_JAVASCRIPT.keys() - in_python().keys() == ONLY_IN_JAVASCRIPT
