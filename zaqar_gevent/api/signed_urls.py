"""Pre-signed URLs: with one, a client uses a queue of a project without a token.

The signature, an HMAC over paths, methods, project and expiry, and its headers are upstream's. It
allows less than upstream's: a signed path is that very path and one more segment below it (a
message of `.../messages`), not every path that looks alike. It holds over every transport, since
an operation has the same method and path everywhere.
"""

from __future__ import annotations

import hmac
import time
from typing import NamedTuple, Self, TypedDict

from oslo_utils import timeutils
from zaqar.common import urls

from zaqar_gevent.api import errors
from zaqar_gevent.api.grants import Grant, Reason


class SignedUrl(TypedDict):
    """The parts of a pre-signed URL; `expires` is UTC, as `2030-01-01T00:00:00`."""

    paths: list[str]
    methods: list[str]
    project: str | None
    expires: str
    signature: str


class SignedRequest(NamedTuple):
    """A signed URL as a request presents it: the values of its headers."""

    signature: str
    expires: str
    methods: str
    paths: str

    @classmethod
    def of(
        cls, signature: str | None, expires: str | None, methods: str | None, paths: str | None
    ) -> Self | None:
        """The request that the headers URL-Signature, -Expires, -Methods and -Paths make.

        None without a signature; the lists are separated by commas.
        """
        if signature is None:
            return None
        return cls(signature, expires or '', methods or '', paths or '')

    @property
    def grant(self) -> Grant:
        """A grant that ends when the URL says; the signature is not verified here."""
        try:
            expires = timeutils.normalize_time(timeutils.parse_isotime(self.expires))
            seconds = (expires - timeutils.utcnow()).total_seconds()
        except (ValueError, OverflowError):
            seconds = 0.0
        return Grant(time.time() + seconds, Reason.SIGNATURE_EXPIRED)


def sign(
    key: str | None,
    paths: list[str],
    *,
    project: str | None,
    methods: list[str] | None = None,
    expires: str | None = None,
) -> SignedUrl:
    """Sign the use of `paths` of a project by `methods` (GET) until `expires` (in a day).

    Raises `errors.BadRequest` where no key is configured, or `expires` is no time to come.
    """
    if not key:
        raise errors.BadRequest(
            'Pre-signed URLs need a secret_key in the [signed_url] section of the server '
            'configuration.'
        )
    try:
        signed: SignedUrl = urls.create_signed_url(
            key, paths, project=project, methods=methods, expires=expires
        )
    except (ValueError, OverflowError) as error:
        raise errors.BadRequest(f'{error} - at `$.expires`') from None
    return signed


def verify(
    key: str | None, signed_request: SignedRequest, *, method: str, path: str, project: str | None
) -> None:
    """Raise `errors.NotFound` unless what is presented opens `path` of `project` to `method` now.

    Nothing is opened where no key is configured.
    """
    methods, paths = signed_request.methods.split(','), signed_request.paths.split(',')
    opened = (
        key
        and method in methods
        and any(_covers(signed, path) for signed in paths)
        and _is_genuine(key, signed_request, methods, paths, project)
    )
    if not opened:
        raise errors.NotFound(
            'The pre-signed URL does not open this path of this project to this method, or has '
            'expired.'
        )


def _covers(signed: str, path: str) -> bool:
    """Whether `path` is the signed one, or one segment below it."""
    return signed in (path, path.rpartition('/')[0])


def _is_genuine(
    key: str,
    signed_request: SignedRequest,
    methods: list[str],
    paths: list[str],
    project: str | None,
) -> bool:
    """Whether this server signed just that; a time in the past is never signed."""
    try:
        genuine = urls.create_signed_url(
            key, paths, project=project, methods=methods, expires=signed_request.expires
        )
        signature = signed_request.signature.encode()
    except (ValueError, OverflowError):
        return False
    return hmac.compare_digest(signature, genuine['signature'].encode())
