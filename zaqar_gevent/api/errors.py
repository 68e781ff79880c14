"""Every error a client can be told about, and the one place where storage errors become them.

::

    APIError                    status  code
    ├── BadRequest              400     bad_request
    │   ├── ClientGone          400     client_gone
    │   ├── MalformedDocument   400     malformed_document
    │   ├── UnknownMarker       400     unknown_marker
    │   └── UnknownAction       400     unknown_action
    ├── Unauthorized            401     unauthorized
    ├── Forbidden               403     forbidden
    ├── NotFound                404     not_found
    │   └── NotLeased           404     not_leased
    ├── NotAcceptable           406     not_acceptable
    ├── RequestTimeout          408     request_timeout
    ├── Conflict                409     conflict
    ├── BodyTooLarge            413     body_too_large
    ├── UnsupportedMediaType    415     unsupported_media_type
    ├── UpgradeRequired         426     upgrade_required
    ├── TooMany                 429     too_many
    │   └── QuotaExceeded       429     quota_exceeded
    ├── NotImplementedHere      501     not_implemented
    └── ServiceUnavailable      503     service_unavailable
        └── AtCapacity          503     at_capacity
            ├── TooManyOfAddress 503    address_at_capacity
            └── TooManyUnknown  503     authentication_at_capacity
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from zaqar.storage import errors as storage_errors

from zaqar_gevent.dead_letters import NoDeadLetterQueue
from zaqar_gevent.markers import MarkerNotGiven
from zaqar_gevent.redrives import TooManyRedrives
from zaqar_gevent.storage.errors import explanation_of

RETRY_AFTER_SECONDS = 5
"""When a request that was answered with 503 may be repeated, over HTTP: the header Retry-After."""


class APIError(Exception):
    """An error as a client may see it.

    `code` is stable and meant for programs, `status` is the HTTP status, `title` names the kind of
    error and `description` says what was wrong, where, and what is allowed. `details` are further
    members of the document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = 'error'
    title = 'Error'

    def __init__(self, description: str, *, title: str | None = None) -> None:
        super().__init__(description)
        self.description = description
        self.details: dict[str, Any] = {}
        if title is not None:
            self.title = title

    def to_document(self) -> dict[str, Any]:
        """The error as `{"code", "title", "description"}`, and its details."""
        document = {'code': self.code, 'title': self.title, 'description': self.description}
        return {**document, **self.details}


class BadRequest(APIError):
    status = 400
    code = 'bad_request'
    title = 'Invalid API request'


class ClientGone(BadRequest):
    """Nobody is there to get the answer; it stands in the log only."""

    code = 'client_gone'
    title = 'Client gone'


class MalformedDocument(BadRequest):
    code = 'malformed_document'
    title = 'Invalid request body'


class UnknownAction(BadRequest):
    code = 'unknown_action'


class UnknownMarker(BadRequest):
    """A marker that the store cannot have given: it was made anew, or restored from a backup."""

    code = 'unknown_marker'
    title = 'Unknown marker'


class Unauthorized(APIError):
    status = 401
    code = 'unauthorized'
    title = 'Unauthorized'


class Forbidden(APIError):
    status = 403
    code = 'forbidden'
    title = 'Not authorized'


class NotFound(APIError):
    status = 404
    code = 'not_found'
    title = 'Not found'


class NotLeased(NotFound):
    """Some messages are not leased to a consumer; the others have been settled."""

    code = 'not_leased'

    def __init__(self, message_ids: Sequence[str]) -> None:
        first, *others = message_ids
        which = f'Message {first} and {len(others)} others are' if others else f'Message {first} is'
        super().__init__(
            f'{which} not leased to this consumer (any more). All other messages of the request '
            'are settled - at `$.message_ids`'
        )
        self.details = {'message_ids': list(message_ids)}


class NotAcceptable(APIError):
    status = 406
    code = 'not_acceptable'
    title = 'Media type not acceptable'


class RequestTimeout(APIError):
    status = 408
    code = 'request_timeout'
    title = 'Request timeout'


class Conflict(APIError):
    status = 409
    code = 'conflict'
    title = 'Resource conflict'


class BodyTooLarge(APIError):
    status = 413
    code = 'body_too_large'
    title = 'Request body too large'


class UnsupportedMediaType(APIError):
    status = 415
    code = 'unsupported_media_type'
    title = 'Unsupported media type'


class UpgradeRequired(APIError):
    status = 426
    code = 'upgrade_required'
    title = 'Upgrade required'


class TooMany(APIError):
    """A client or its project has as many of something as it may have."""

    status = 429
    code = 'too_many'
    title = 'Too many'


class QuotaExceeded(TooMany):
    """A project would have more than `[quota]` allows.

    retry_after: when to ask again, in seconds; REST says it in the header Retry-After.
    """

    code = 'quota_exceeded'
    title = 'Quota exceeded'

    def __init__(self, description: str, *, retry_after: int) -> None:
        super().__init__(f'{description} Try again in {retry_after} s.')
        self.retry_after = retry_after


class NotImplementedHere(APIError):
    status = 501
    code = 'not_implemented'
    title = 'Not implemented'


class ServiceUnavailable(APIError):
    status = 503
    code = 'service_unavailable'
    title = 'Service temporarily unavailable'

    @classmethod
    def during(cls, operation: str, explanation: str = '') -> ServiceUnavailable:
        """The store failed while it served `operation`."""
        advice = explanation or 'Please try again in a few seconds.'
        return cls(f'{operation} could not be completed. {advice}')


class AtCapacity(ServiceUnavailable):
    code = 'at_capacity'
    title = 'At capacity'


class TooManyOfAddress(AtCapacity):
    code = 'address_at_capacity'


class TooManyUnknown(AtCapacity):
    code = 'authentication_at_capacity'


_WRONG_TYPE = re.compile(r'^Expected `(?P<wanted>[^`]+)`, got `(?P<found>[^`]+)`')
_MISSING = re.compile(r'^Object missing required field ')
_TYPE_NAMES = {
    'array': 'a list',
    'bool': 'a boolean',
    'float': 'a number',
    'int': 'an integer',
    'object': 'a dict',
    'str': 'a string',
}


def from_decoding(error: msgspec.ValidationError, root: str = '$') -> MalformedDocument:
    """The error for an argument that is missing or of the wrong type.

    `root` is where the decoded value was in the arguments; the place named starts there.
    """
    text = _WRONG_TYPE.sub(_describe_types, str(error))
    text = _MISSING.sub('Missing parameter ', text)
    return MalformedDocument(text.replace('`$', f'`{root}', 1))


def _describe_types(match: re.Match[str]) -> str:
    wanted = ' or '.join(_TYPE_NAMES.get(name, name) for name in match['wanted'].split(' | '))
    return f'The value must be {wanted}, not {_TYPE_NAMES.get(match["found"], match["found"])}'


_CLAIM_MISSING = 'The specified claim does not exist or has expired.'
_CLAIM_NEEDED = 'This message is claimed; it cannot be deleted without a valid claim ID.'
_NOT_CLAIMED = 'A claim was specified, but the message is not currently claimed.'


def from_storage(error: storage_errors.ExceptionBase, operation: str) -> APIError:
    """The error for an `operation` that the store refused or failed.

    A missing resource is 404 and a refusal is 403 or 400. Anything else that a store raises,
    such as a lost connection or a conflict between writers, is 503.
    """
    match error:
        case MarkerNotGiven():
            return UnknownMarker(
                f'The store has not given the marker {error.marker}: it has been made anew, or '
                'restored from a backup. Begin again at the start, without a marker - at `$.marker`'
            )
        case storage_errors.ClaimDoesNotMatch() | NoDeadLetterQueue():
            return BadRequest(str(error))
        case TooManyRedrives(owner=owner):
            return TooMany(
                f'{error} ([drivers:transport:gevent] max_redrives_per_{owner}). Wait until one is '
                'over, or cancel one.'
            )
        case storage_errors.DoesNotExist():
            return NotFound(str(error))
        case storage_errors.MessageNotClaimed():
            return BadRequest(_NOT_CLAIMED, title='Unable to delete')
        case storage_errors.NotPermitted():
            return Forbidden(_CLAIM_NEEDED, title='Unable to delete')
        case _:
            # Some stores know more of it that is of use to a client.
            return ServiceUnavailable.during(operation, explanation_of(error))


def no_pool(name: str) -> Conflict:
    """A queue or topic was to be created, and there is no pool for it: nobody need try again."""
    return Conflict(
        f'There is no pool for {name}: this server keeps queues in pools, and none without a '
        'flavor is registered. An administrator has to register one (PUT /v2/pools/NAME, or '
        '`zaqar-gevent pool create`).'
    )


def unknown_claim() -> BadRequest:
    """A message was to be deleted under a claim that is not there (any more)."""
    return BadRequest(_CLAIM_MISSING, title='Unable to delete')
