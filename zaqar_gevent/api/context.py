"""The caller of an operation, its project and its connection."""

from __future__ import annotations

import functools
import logging
import re
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from oslo_log import log
from zaqar.storage import errors as storage_errors

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.grants import UNLIMITED, Grant
from zaqar_gevent.api.operation import Kind
from zaqar_gevent.logs import level_of
from zaqar_gevent.storage.interface import QueueController

if TYPE_CHECKING:
    from zaqar_gevent.api.broker import Broker
    from zaqar_gevent.api.push import Endpoint
    from zaqar_gevent.api.signed_urls import SignedRequest
    from zaqar_gevent.api.tracing import TraceContext

LOG = log.getLogger(__name__)

# Where authentication leaves `Caller.credentials` in the environment of a request.
CREDENTIALS = 'zaqar_gevent.credentials'


Metadata = dict[str, Any]

# In characters: callers are remembered.
MAX_PROJECT_ID = 256
MAX_CLIENT_ID = 300
MAX_USER_ID = 256
MAX_ROLES = 8192

# The same as in the names of projects.
_CONTROL = re.compile(r'[\x00-\x1f\x7f]')
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@functools.lru_cache(maxsize=4096)
def _parse_client_id(text: str) -> uuid.UUID | str:
    try:
        return uuid.UUID(text)
    except ValueError:
        return text


class Caller(NamedTuple):
    """The caller of an operation.

    project_id, user_id, roles: from authentication, or from the request's headers without it.
    client_id: the Client-ID header as sent.
    credentials: what else a token says that policy rules may ask about, by oslo.context's names.
    """

    project_id: str | None
    client_id: str | None
    user_id: str | None = None
    roles: tuple[str, ...] = ()
    credentials: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls, project_id: str | None, client_id: str | None, user_id: str | None, roles: str | None
    ) -> Caller:
        """The caller that headers name; `roles` are separated by commas.

        Raises `errors.BadRequest` for one that is longer than any that is real, and for control
        characters in a user or role.
        """
        if not (
            len(project_id or '') <= MAX_PROJECT_ID
            and len(client_id or '') <= MAX_CLIENT_ID
            and len(user_id or '') <= MAX_USER_ID
            and len(roles or '') <= MAX_ROLES
        ):
            raise _too_long(project_id, client_id, user_id)
        for name, value in (('X-User-ID', user_id), ('X-Roles', roles)):
            if value and _CONTROL.search(value):
                raise errors.BadRequest(f'The header {name} must not hold control characters.')
        # Of white space only what a header of HTTP may have around the elements of a list.
        split = tuple(role.strip(' ') for role in roles.split(',')) if roles else ()
        return cls(project_id, client_id, user_id, split)


def _too_long(
    project_id: str | None, client_id: str | None, user_id: str | None
) -> errors.BadRequest:
    if len(project_id or '') > MAX_PROJECT_ID:
        name, most = 'X-Project-ID', MAX_PROJECT_ID
    elif len(client_id or '') > MAX_CLIENT_ID:
        name, most = 'Client-ID', MAX_CLIENT_ID
    elif len(user_id or '') > MAX_USER_ID:
        name, most = 'X-User-ID', MAX_USER_ID
    else:
        name, most = 'X-Roles', MAX_ROLES
    return errors.BadRequest(f'The header {name} may have at most {most} characters.')


class Identity(NamedTuple):
    """The identity that a token stands for.

    caller: its user, project and roles; of no client in particular.
    expires_at: when it ends, in seconds since the epoch.
    environ: what authentication left for those who act in the user's name.
    tokens: the headers by which it was identified, by lower-case name.
    """

    caller: Caller
    expires_at: float
    environ: Mapping[str, Any]
    tokens: Mapping[str, str] = _NOTHING


class Client(Protocol):
    """The connection that a request came over."""

    def is_gone(self) -> bool:
        """Whether the client has hung up, as far as can be told without waiting."""
        ...


class Context:
    """The context of a request: all that an operation knows beside its arguments.

    broker: the stores, limits and defaults it works with.
    caller, project_id: who asks, and for which project.
    environ: what authentication left for those who act in the user's name.
    signed_request: the pre-signed URL that the request has instead of authentication.
    kind: whether queues or topics are meant.
    sent_bytes: size of the body as it was sent, in bytes; for transports that wrap the body, an
        upper bound (`exact_size` is False then).
    endpoint: the connection that the request came over, where it can be pushed to.
    client: the same, of any transport; None where its server does not tell.
    grant: of the token or pre-signed URL; subscriptions and consumers end with it.
    binary: whether the request came in MsgPack.
    undo: what to call where the answer cannot be sent.
    shows_extensions: whether the client knows of what upstream's API does not have.
    trace: the trace that the request belongs to, where it says so.
    passed: the queues that a webhook's request has come through, as it says.
    """

    __slots__ = (
        *('binary', 'broker', 'caller', 'endpoint', 'environ', 'exact_size', 'grant', 'kind'),
        *('client', 'passed', 'project_id', 'sent_bytes', 'shows_extensions'),
        *('signed_request', 'trace', 'undo'),
    )

    def __init__(
        self,
        broker: Broker,
        caller: Caller,
        environ: Mapping[str, Any] | None = None,
        client: Client | None = None,
        *,
        sent_bytes: int | None = None,
        exact_size: bool = True,
        signed_request: SignedRequest | None = None,
        endpoint: Endpoint | None = None,
        grant: Grant = UNLIMITED,
        binary: bool = False,
        shows_extensions: bool = False,
        passed: str | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        if environ and CREDENTIALS in environ:
            caller = caller._replace(credentials=environ[CREDENTIALS])
        self.broker = broker
        self.caller = caller
        self.project_id = caller.project_id
        self.sent_bytes = sent_bytes
        self.exact_size = exact_size
        self.environ = environ or _NOTHING
        self.signed_request = signed_request
        self.endpoint = endpoint
        self.client = endpoint if client is None else client
        self.grant = grant
        self.binary = binary
        self.undo: Callable[[], None] | None = None
        self.shows_extensions = shows_extensions
        self.passed = passed
        self.trace = trace
        self.kind = Kind.QUEUE

    @property
    def client_uuid(self) -> uuid.UUID | str:
        """The client id as storage drivers want it: a UUID where it is one."""
        return _parse_client_id(self.caller.client_id or '')

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more, or is allowed to, as far as is known."""
        return self.grant.is_over or (self.client is not None and self.client.is_gone())

    def check_present(self) -> None:
        """Raise `errors.ClientGone` where nobody waits for what is about to be taken."""
        if self.client is not None and self.client.is_gone():
            raise errors.ClientGone('The client hung up before anything was taken.')

    def report_size(self, size: int) -> None:
        """The answer has `size` bytes; to be called as soon as it is encoded."""
        self.broker.answer_limiter.report(self.project_id, size)

    def take_back(self) -> None:
        """The answer cannot be sent: undo what gave the client something."""
        undo, self.undo = self.undo, None
        if undo is not None:
            try:
                undo()
            except Exception as error:
                level = level_of(error, logging.ERROR)
                LOG.log(level, 'What a client was not told could not be taken back: %s', error)

    @property
    def queues(self) -> QueueController:
        """The controller of queues, or of topics where those are meant."""
        return self.broker.queues if self.kind is Kind.QUEUE else self.broker.topics

    def metadata_of(self, name: str) -> Metadata:
        """The stored metadata of a queue, not to be changed; nothing for one that does not exist.

        It may be as old as `Broker.metadata` lets it be.
        """
        try:
            return self._cached_metadata_of(name)
        except storage_errors.DoesNotExist:
            return {}

    def ensured_metadata_of(self, name: str) -> Metadata:
        """The same; a queue that does not exist is created."""
        try:
            return self._cached_metadata_of(name)
        except storage_errors.DoesNotExist:
            self.create_queue(name, None)
            return {}

    def create_queue(self, name: str, metadata: Metadata | None) -> bool:
        """Create a queue or topic unless there is one; whether it has been created.

        Raises `errors.QuotaExceeded`; `errors.Conflict` where there is no pool for it.
        """
        quotas = self.broker.project_quotas
        if self.kind is Kind.QUEUE and quotas.limit_queues:
            with quotas.new_queue(name, self.project_id):
                return self._create_queue(name, metadata)
        return self._create_queue(name, metadata)

    def _create_queue(self, name: str, metadata: Metadata | None) -> bool:
        try:
            return self.queues.create(name, metadata=metadata, project=self.project_id)
        except storage_errors.NoPoolFound:
            raise errors.no_pool(name) from None

    def forget_metadata_of(self, name: str) -> None:
        """The metadata of a queue has changed."""
        self.broker.metadata.forget((self.kind, self.project_id, name))

    def forget_subscriptions_of(self, name: str) -> None:
        """The subscriptions of a queue have changed."""
        self.broker.notifier.forget(name, self.project_id)

    def _cached_metadata_of(self, name: str) -> Metadata:
        return self.broker.metadata.get(
            (self.kind, self.project_id, name),
            lambda: self.queues.get_metadata(name, self.project_id) or {},
        )

    def size_of(self, document: Any, limit: int) -> int | None:
        """Bytes that were sent for `document`, exact where it may exceed `limit`.

        None when nothing was sent.
        """
        if self.sent_bytes is None or self.exact_size or self.sent_bytes <= limit:
            return self.sent_bytes
        return len(documents.encode(document, binary=self.binary))
