"""Every error that the client raises.

::

    ZaqarError
    ├── APIError               the server's: status, code, title, description
    │   ├── BadRequest              400
    │   ├── Unauthorized            401
    │   ├── Forbidden               403
    │   ├── NotFound                404
    │   ├── NotAcceptable           406
    │   ├── Conflict                409
    │   ├── BodyTooLarge            413
    │   ├── UnsupportedMediaType    415
    │   ├── TooManyRequests         429
    │   ├── NotImplementedThere     501
    │   └── ServiceUnavailable      503
    ├── ConnectionLost         the server cannot be reached; nothing was done that matters
    ├── NotZaqar               what answers at the URL is something else than a Zaqar
    ├── Timeout                no answer in time; what was asked may yet be done, or have been
    ├── OutcomeUnknown         the connection died before the answer; it may have been done or not
    ├── AccessEnded            what a subscription or consumer was made with is not valid any more
    ├── LeaseLost              messages were acknowledged too late, and come again
    ├── ClientClosed           the client has been closed
    │   └── ClientForked           the client was made before this process was forked
    └── Unsupported            this server has nothing to do it with
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ZaqarError(Exception):
    """Whatever goes wrong in talking to a server."""


class APIError(ZaqarError):
    """A request that the server refused.

    `status` is the HTTP status, over any transport. `code` is stable and meant for programs,
    `title` names the kind of error, `description` says what was wrong.
    """

    def __init__(self, status: int, code: str, title: str, description: str) -> None:
        super().__init__(f'{status} {code}: {description or title}')
        self.status = status
        self.code = code
        self.title = title
        self.description = description


class BadRequest(APIError):
    """400: the request is wrong."""


class Unauthorized(APIError):
    """401: the token is missing, wrong or expired."""


class Forbidden(APIError):
    """403: the caller may not do this."""


class NotFound(APIError):
    """404: what was asked for does not exist."""


class NotAcceptable(APIError):
    """406: the server cannot answer in the form asked for."""


class Conflict(APIError):
    """409: it contradicts what is there."""


class BodyTooLarge(APIError):
    """413: the request is too long."""


class UnsupportedMediaType(APIError):
    """415: the body is of a kind that the server does not take here."""


class TooManyRequests(APIError):
    """429: something between client and server wants fewer requests."""


class NotImplementedThere(APIError):
    """501: the server cannot do this."""


class ServiceUnavailable(APIError):
    """503: the server or its store cannot answer now; try again."""


class ConnectionLost(ZaqarError):
    """The server cannot be reached, and the request has not been performed.

    Of what may be repeated without harm it is not known whether it has been done.
    """


class NotZaqar(ZaqarError):
    """What answers at the URL is something else than a Zaqar, such as another web server."""


class Timeout(ZaqarError, TimeoutError):
    """No answer came in time. What was asked may have been done, or may yet be."""


class OutcomeUnknown(ZaqarError):
    """The connection died after a request was sent that cannot be repeated without harm."""


class AccessEnded(ZaqarError):
    """The server has ended a subscription or consumer, which cannot be made anew as it was.

    `reason` is stable and meant for programs: `project_changed` where the connection has
    authenticated for another project, `signature_expired` where a pre-signed URL has expired.
    """

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(description or reason)
        self.reason = reason


class Retry(Exception):
    """For handlers of a `Worker`: deliver the message again, after `delay` seconds if given."""

    def __init__(self, delay: float | None = None) -> None:
        super().__init__('to be retried')
        self.delay = delay


class Reject(Exception):
    """For handlers of a `Worker`: move the message to the dead letter queue, for this reason."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or 'rejected')
        self.reason = reason


class LeaseLost(ZaqarError):
    """Messages were acknowledged after their leases had been lost, so they come again.

    Only acknowledgements that nobody waited for raise it. message_ids: of those messages.
    """

    def __init__(self, message_ids: Sequence[str]) -> None:
        super().__init__(
            f'{len(message_ids)} messages were acknowledged after their leases had been lost, and '
            f'come again: {", ".join(message_ids[:10])}'
        )
        self.message_ids = list(message_ids)


class ClientClosed(ZaqarError):
    """The client was closed before or while this was asked."""


class ClientForked(ClientClosed):
    """The client was made before this process was forked: it works in the parent process only."""


class Unsupported(ZaqarError):
    """The server has nothing to do it with."""


_KINDS: dict[int, tuple[type[APIError], str]] = {
    400: (BadRequest, 'bad_request'),
    401: (Unauthorized, 'unauthorized'),
    403: (Forbidden, 'forbidden'),
    404: (NotFound, 'not_found'),
    406: (NotAcceptable, 'not_acceptable'),
    409: (Conflict, 'conflict'),
    413: (BodyTooLarge, 'body_too_large'),
    415: (UnsupportedMediaType, 'unsupported_media_type'),
    429: (TooManyRequests, 'too_many_requests'),
    501: (NotImplementedThere, 'not_implemented'),
    503: (ServiceUnavailable, 'service_unavailable'),
}


# What another token of the same project mends, or simply to ask again.
_MENDED = frozenset({'token_expired', 'user_changed', 'deleted', 'expired', 'unknown_marker'})

UNKNOWN_MARKER = 'unknown_marker'
"""The code of the error for a marker that the store has not given, for it is another one by now."""


def from_end(reason: str, description: str) -> AccessEnded | None:
    """The error that the end of a subscription or consumer is; None where it can be made anew."""
    return None if reason in _MENDED else AccessEnded(reason, description)


def from_answer(status: int, body: Any) -> APIError:
    """The error that an answer reports, in whichever of the forms that servers have for it.

    Upstream's say no code: then it is the one that usually goes with the status.
    """
    kind, usual_code = _KINDS.get(status, (APIError, 'error'))
    if not isinstance(body, dict):
        body = {'description': body or ''}
    description = str(body.get('description') or body.get('error') or '')
    title = str(body.get('title') or body.get('exception') or '')
    return kind(status, str(body.get('code') or usual_code), title, description)
