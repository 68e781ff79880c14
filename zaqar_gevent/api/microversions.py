"""Which version of the API a client asks for, by OpenStack's microversions.

Upstream's clients fail on members that they do not know, so answers have members that upstream's do
not have only for clients that ask. The header `OpenStack-API-Version: messaging 2.1` asks for all
of them. Requests may have new members in every version.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from zaqar_gevent.api import errors

HEADER = 'OpenStack-API-Version'

SERVICE = 'messaging'


class Version(NamedTuple):
    """A version of the API."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f'{self.major}.{self.minor}'

    @property
    def header(self) -> str:
        """The header's value."""
        return f'{SERVICE} {self}'

    @property
    def shows_extensions(self) -> bool:
        """Whether its answers have members that upstream's do not have."""
        return self >= EXTENDED


MINIMUM = Version(2, 0)
EXTENDED = Version(2, 1)
MAXIMUM = EXTENDED

_VERSION = re.compile(r'(\d{1,4})\.(\d{1,4})', re.ASCII)


def asked_for(header: str | None) -> Version | None:
    """The version that a header asks for, which may name several services.

    None where there is no such header, or it asks nothing of this service that can be understood.

    Raises `errors.NotAcceptable` for a version that is not served.
    """
    for text in header.split(',') if header else ():
        service, _, wanted = text.strip().partition(' ')
        if service.lower() != SERVICE:
            continue
        if wanted.strip() == 'latest':
            return MAXIMUM
        digits = _VERSION.fullmatch(wanted.strip())
        if digits is None:
            continue
        version = Version(int(digits[1]), int(digits[2]))
        if not MINIMUM <= version <= MAXIMUM:
            raise errors.NotAcceptable(
                f'The API is served in the versions {MINIMUM} to {MAXIMUM}, not in {version}. '
                f'Give one of them in the header {HEADER}, or "{SERVICE} latest".',
                title='Version not acceptable',
            )
        return version
    return None
