"""Bodies that would do harm if they were taken for anything but text."""

from __future__ import annotations

from typing import Any

BODIES: list[Any] = [
    '<img src=x onerror="globalThis.pwned = 1">',
    '</pre></li><script>globalThis.pwned = 2</script>',
    {'__proto__': {'polluted': True}, 'constructor': '<b>bold</b>'},
    ['\u202egnp.exe', '\u0000\u0007\u2028', '\ud83d\ude00' * 50],
    'x' * 100_000,
    [[[[[[[[[[]]]]]]]]]],
    None,
    '',
    2**63 - 1,
    -(2**53) - 1,
]
