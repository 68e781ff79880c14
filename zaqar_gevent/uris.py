"""Passwords in the URIs of stores: none is shown, and those that would be misread are refused."""

from __future__ import annotations

import re

ENCODING = (
    'its user name or password has special characters that must be percent-encoded, such as / as '
    '%2F, @ as %40, ? as %3F, # as %23 and % as %25'
)

_SCHEME = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')
_BAD_ESCAPE = re.compile(r'%(?![0-9A-Fa-f]{2})')
_SECRET_OPTION = re.compile(r'(?i)(?<=[?&])([^=&]*password)=([^&]*)')
_PORT = re.compile(r'(\[[^\]]*\]|[^:,]*)(:[0-9]*)?(,|$)')


def conceal(uri: str) -> str:
    """The URI without user and password, and without passwords among its options."""
    scheme = _SCHEME.match(uri)
    if scheme is None or uri.startswith('sqlite:'):
        return uri
    credentials, rest = _split(uri[scheme.end() :])
    shown = rest if credentials is None else rest.lstrip('@')
    return scheme[0] + _SECRET_OPTION.sub(r'\1=***', shown)


def conceal_options(text: str, uri: str) -> str:
    """A text about a URI, without the passwords that are among its options."""
    for match in _SECRET_OPTION.finditer(uri):
        if match[2]:
            text = text.replace(match[2], '***')
    return text


def find_fault(uri: str) -> str | None:
    """What is wrong with the user and the password in a URI; None for nothing.

    Whoever reads it takes part of the password for a host, a port, a path or an option.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None or uri.startswith('sqlite:'):
        return None
    text = uri[scheme.end() :]
    if text.startswith('/'):
        # A path or a database, and no host: there is no user.
        return None
    credentials, _ = _split(text)
    # To libpq the others have no meaning.
    ends = '/?@' if uri.startswith('postgres') else '/?@#[]'
    if credentials is None or not (
        _BAD_ESCAPE.search(credentials) or any(end in credentials for end in ends)
    ):
        return None
    return ENCODING


def _split(text: str) -> tuple[str | None, str]:
    """What follows the scheme, in two: the user and the password, None for none, and the rest."""
    head, mark, query = text.partition('?')
    place = head.rfind('@')
    if place < 0 and mark and '@' in query and not _is_query(head, query):
        place = text.rfind('@')
    if place < 0:
        return None, text
    return text[:place], text[place + 1 :]


def _is_query(head: str, query: str) -> bool:
    """Whether what follows a question mark are options that happen to have an @ in them."""
    hosts = head.partition('/')[0]
    first = re.split('[&@]', query, maxsplit=1)[0]
    return _PORT.sub('', hosts) == '' and '=' in first
