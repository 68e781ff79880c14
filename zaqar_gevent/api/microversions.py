"""The version of the API that a client asks for, by OpenStack's microversions.

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

# No more digits are read: the versions that are served have one.
_VERSION = re.compile(r'(0|[1-9]\d*)\.(0|[1-9]\d*)', re.ASCII)
_MAX_DIGITS = 4
_SHOWN_CHARACTERS = 40


def asked_for(header: str | None) -> Version | None:
    """The version that a header asks for, which may name several services.

    None where there is no such header, or it does not name this service.

    Raises `errors.NotAcceptable` for a version that is not served, and `errors.BadRequest` for what
    is no version.
    """
    found = None
    for text in header.split(',') if header else ():
        service, _, wanted = text.replace('\t', ' ').strip(' ').partition(' ')
        if service.lower() == SERVICE:
            found = found or _read(wanted.strip(' '))
        elif service and not wanted:
            # Most likely the name of the service was forgotten.
            raise _unreadable(service)
    return found


def asked_for_or_latest(header: str | None) -> Version | None:
    """The version in which the versions are listed: the latest for a header with a wrong one."""
    try:
        return asked_for(header)
    except errors.APIError:
        return MAXIMUM


def _read(wanted: str) -> Version:
    if wanted == 'latest':
        return MAXIMUM
    digits = _VERSION.fullmatch(wanted)
    if digits is None:
        raise _unreadable(f'{SERVICE} {wanted}')
    if max(map(len, digits.groups())) <= _MAX_DIGITS:
        version = Version(int(digits[1]), int(digits[2]))
        if MINIMUM <= version <= MAXIMUM:
            return version
    raise errors.NotAcceptable(
        f'The API is served in the versions {MINIMUM} to {MAXIMUM}, not in {_shorten(wanted)}. '
        f'Give one of them in the header {HEADER}, or "{SERVICE} latest".',
        title='Version not acceptable',
    )


def _unreadable(text: str) -> errors.BadRequest:
    return errors.BadRequest(
        f'The header {HEADER} must be "{SERVICE} MAJOR.MINOR", as in "{MAXIMUM.header}", or '
        f'"{SERVICE} latest", not "{_shorten(text)}".'
    )


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f'{text[:_SHOWN_CHARACTERS]}...'
