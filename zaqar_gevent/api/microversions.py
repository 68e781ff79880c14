"""Which of what upstream's API does not know a client asks for, by OpenStack's microversions.

Upstream's clients fail on members that they do not know. The header
`OpenStack-API-Version: messaging 2.1` asks for all of them.
"""

from __future__ import annotations

import re

HEADER = 'OpenStack-API-Version'

EXTENDED = (2, 1)
"""The first version whose answers have members that upstream's do not have."""

_SERVICE = 'messaging'
_VERSION = re.compile(r'(\d{1,4})\.(\d{1,4})', re.ASCII)


def asks_for_extensions(header: str | None) -> bool:
    """Whether the header, which may name several services, asks for `EXTENDED` or later."""
    return any(map(_is_extended, header.split(','))) if header else False


def _is_extended(text: str) -> bool:
    service, _, wanted = text.strip().partition(' ')
    if service.lower() != _SERVICE:
        return False
    version = _VERSION.fullmatch(wanted.strip())
    if version is None:
        return wanted.strip() == 'latest'
    return (int(version[1]), int(version[2])) >= EXTENDED
