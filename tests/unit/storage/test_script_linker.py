"""Scripts for Redis get the definitions that they use, and no others."""

from __future__ import annotations

from zaqar_gevent.storage.redis.script_linker import link_script

LIBRARY = """-- A library.

local call = redis.call

local ONE, TWO =
    1, 2

-- Calls unused; the word in this comment is no use of it.
local function get(key)
    return call('GET', key)
end
local function unused(key)
    return get(key)
end

local function get_both(key)
    -- unused
    return {get(key), ONE}
end
"""

GET = """local function get(key)
    return call('GET', key)
end
"""


def test_a_script_has_only_the_definitions_that_it_uses() -> None:
    script = 'return get(KEYS[1])\n'
    assert link_script(LIBRARY, script) == f'local call = redis.call\n\n{GET}{script}'


def test_definitions_bring_what_they_use_themselves() -> None:
    linked = link_script(LIBRARY, 'return get_both(KEYS[1])\n')
    assert 'ONE, TWO =\n    1, 2\n' in linked
    assert GET in linked
    assert 'function unused' not in linked


def test_a_script_may_need_nothing() -> None:
    assert link_script(LIBRARY, 'return 1 -- get\n') == 'return 1 -- get\n'
