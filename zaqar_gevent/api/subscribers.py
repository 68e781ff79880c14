"""Checks the URL of a webhook and the options of its subscription."""

from __future__ import annotations

import base64
import functools
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from zaqar_gevent.api import errors, signatures
from zaqar_gevent.api.networks import Networks, literal_address

TRUST = 'trust+'
SCHEMES = frozenset({'http', 'https', 'trust+http', 'trust+https'})

PLACEHOLDER = '"$zaqar_message$"'
MAX_PLACEHOLDERS = 10
"""Times that the message may stand in `post_data`."""

MAX_SUBSCRIBER_SIZE = 8192
"""Characters of the URI of a subscriber."""

MAX_HEADERS_SIZE = 8192
"""Characters of all `post_headers` together."""

RESERVED_HEADERS = frozenset(
    {
        *('connection', 'content-length', 'expect', 'keep-alive', 'proxy-authorization'),
        *('proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade'),
    }
)
"""Headers that a subscription cannot set, in lower case."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r'[\t\x20-\x7e\x80-\xff]*')
_DEFAULT_PORTS = {'http': 80, 'https': 443}
_LAST_PORT = 65535


class Target(NamedTuple):
    """Where a webhook's request goes.

    scheme: http or https. host: a name or an address, without brackets. authority: host and port
        as the Host header has them. path: with the query. authorization: of a URL that holds user
        and password, None of others.
    """

    scheme: str
    host: str
    port: int
    authority: str
    path: str
    authorization: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """The key of a connection: requests with an equal key may share it."""
        return self.scheme, self.host, self.port


def is_webhook(subscriber: str) -> bool:
    """Whether a subscriber is told over HTTP."""
    return subscriber.partition(':')[0].lower() in SCHEMES


@functools.lru_cache(maxsize=4096)
def parse_target(url: str) -> Target:
    """Where a subscriber's URL leads; raises `ValueError` where it leads nowhere."""
    try:
        parsed = parse_url(url[len(TRUST) :] if url.lower().startswith(TRUST) else url)
    except (LocationParseError, UnicodeError):
        raise ValueError(
            'The URL of a webhook must have a host, and a port of 1 to 65535'
        ) from None
    scheme = parsed.scheme or ''
    host = (parsed.host or '').strip('[]')
    port = _DEFAULT_PORTS.get(scheme, 0) if parsed.port is None else parsed.port
    if scheme not in _DEFAULT_PORTS or not host or not 0 < port <= _LAST_PORT:
        raise ValueError('The URL of a webhook must have a host, and a port of 1 to 65535')
    named = f'[{host}]' if ':' in host else host
    authority = named if parsed.port is None else f'{named}:{port}'
    return Target(scheme, host, port, authority, parsed.request_uri, _authorization(parsed.auth))


def check_subscriber(subscriber: str, networks: Networks) -> None:
    """Raise `errors.BadRequest` for a webhook that leads nowhere, or where it may not go."""
    if not is_webhook(subscriber):
        return
    try:
        target = parse_target(subscriber)
    except ValueError as error:
        raise errors.BadRequest(f'{error} - at `$.subscriber`') from None
    address = literal_address(target.host)
    refusal = address and networks.refusal(address)
    if refusal:
        raise errors.BadRequest(f'The subscriber is refused: {refusal} - at `$.subscriber`')


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `errors.BadRequest` for options of a webhook that cannot work."""
    if (options.get('post_data') or '').count(PLACEHOLDER) > MAX_PLACEHOLDERS:
        raise errors.BadRequest(
            f'{PLACEHOLDER} may be there at most {MAX_PLACEHOLDERS} times - at '
            '`$.options.post_data`'
        )
    try:
        read_headers(options.get('post_headers') or {})
    except ValueError as error:
        raise errors.BadRequest(f'{error} - at `$.options.post_headers`') from None
    secret = options.get(signatures.SECRET)
    if secret is not None and secret is not True:
        _check_secret(secret)


def read_headers(given: Mapping[str, str]) -> dict[str, str]:
    """A subscription's `post_headers`; raises `ValueError` for what cannot be sent."""
    size = 0
    for name, value in given.items():
        size += len(name) + len(value)
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError('The name of a header must be of letters, digits and hyphens')
        if name.lower() in RESERVED_HEADERS:
            raise ValueError(f'The header {name} cannot be set')
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(
                f'The header {name} must be of Latin-1 characters, without line breaks'
            )
    if size > MAX_HEADERS_SIZE:
        raise ValueError(f'All headers together must have at most {MAX_HEADERS_SIZE} characters')
    return dict(given)


def conceal(subscription: Any) -> Any:
    """A subscription, or what asks for one, as it is shown: that it has a secret, but not which."""
    options = subscription.get('options') if isinstance(subscription, dict) else None
    if not isinstance(options, dict) or options.get(signatures.SECRET) is None:
        return subscription
    return {**subscription, 'options': {**options, signatures.SECRET: True}}


def keep_secret(options: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """New options, with the secret of those before unless they have another one or say null.

    Raises `errors.BadRequest` for a secret that is only said to be there, where there is none.
    """
    given = options.get(signatures.SECRET, True)
    others = {name: value for name, value in options.items() if name != signatures.SECRET}
    kept = before.get(signatures.SECRET) if given is True else given
    if kept is not None:
        return {**others, signatures.SECRET: kept}
    if options.get(signatures.SECRET) is True:
        raise errors.BadRequest(
            'No secret is set that could be kept; give one, or leave it out - at '
            f'`$.options.{signatures.SECRET}`'
        )
    return others


def body_parts(post_data: str | None, message: bytes) -> Iterable[bytes]:
    """The body of a request, in parts: the message, or `post_data` with the message in it."""
    if post_data is None:
        return (message,)
    texts = post_data.split(PLACEHOLDER)
    if len(texts) - 1 > MAX_PLACEHOLDERS:
        raise ValueError(f'post_data has {PLACEHOLDER} more than {MAX_PLACEHOLDERS} times')
    parts = [texts[0].encode()]
    for text in texts[1:]:
        parts += [message, text.encode()]
    return [part for part in parts if part]


def _check_secret(secret: object) -> None:
    try:
        signatures.read_secrets(secret)
    except ValueError as error:
        raise errors.BadRequest(f'{error} - at `$.options.{signatures.SECRET}`') from None


def _authorization(user_and_password: str | None) -> str | None:
    """HTTP's basic authentication, for a URL that holds user and password."""
    if user_and_password is None:
        return None
    user, _, password = user_and_password.partition(':')
    plain = f'{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}'
    return f'Basic {base64.b64encode(plain.encode("latin-1", "replace")).decode()}'
