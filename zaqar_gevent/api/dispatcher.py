"""The one way into an operation: check the caller, decode, call, and name what went wrong."""

from __future__ import annotations

from typing import Any

import msgspec
from oslo_log import log
from zaqar.storage import errors as storage_errors
from zaqar.transport.validation import ValidationFailed

from zaqar_gevent.api import errors, signed_urls
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.context import Caller, Context
from zaqar_gevent.api.grants import UNLIMITED
from zaqar_gevent.api.operation import CONNECTION, REGISTRY, Kind, Operation, Reply
from zaqar_gevent.api.policy import Policy
from zaqar_gevent.storage.errors import is_logged

LOG = log.getLogger(__name__)

MAX_IDENTIFIED = 10_000

# PERF: members of an enumeration are looked up by its metaclass.
_TOPIC = Kind.TOPIC


class Dispatcher:
    """Performs operations for the transports.

    operations: what this server offers, by name. connection_operations: what it offers over
        WebSocket only. long_operations: the names of those whose answers may be long.
    """

    def __init__(self, broker: Broker, policy: Policy) -> None:
        self.broker = broker
        self.operations = REGISTRY.offered(
            admin=broker.conf.admin_mode, pooling=broker.conf.pooling
        )
        self.connection_operations = CONNECTION.offered(admin=True, pooling=True)
        self.long_operations = frozenset(
            operation.name for operation in self.operations.values() if operation.is_long
        )
        self._policy = policy
        self._quotas = broker.project_quotas
        self._identified: set[tuple[str | None, str | None]] = set()
        self._named: set[tuple[Kind, str, str | None]] = set()

    def find(self, action: object) -> Operation:
        """The operation named `action`, which may be anything a client sent."""
        operation = None
        if isinstance(action, str):
            operation = self.operations.get(action) or self.connection_operations.get(action)
        if operation is None:
            raise errors.UnknownAction(f'{action} is not a valid action')
        return operation

    def authorize(self, operation: Operation, context: Context, arguments: dict[str, Any]) -> None:
        """Let the caller in or raise `errors.APIError`, and nothing else, whatever the arguments.

        Of the arguments only those in the operation's path count, so that this can be asked before
        a body is read.
        """
        try:
            if context.signed_request is not None:
                self._admit(context.signed_request, operation, context, arguments)
            elif context.grant is not UNLIMITED and context.grant.reason is not None:
                # The grant has ended while the request waited for its turn.
                raise context.grant.reason.refusal
            caller = context.caller
            if not operation.anonymous and caller[:2] not in self._identified:
                self._identify(caller)
            if self._quotas.limit_requests and not operation.anonymous:
                self._quotas.count_request(context.project_id)
            policy = operation.policy
            if policy is not None and not self._policy.allows(policy, caller):
                raise errors.Forbidden('You are not authorized to complete this action.')
        except Exception as error:
            raise _failure(operation, error) from None

    def perform(self, operation: Operation, context: Context, arguments: dict[str, Any]) -> Reply:
        """Perform `operation` for a caller that was let in by `authorize`.

        Raises `errors.APIError`, and nothing else, whatever the arguments and the store do.
        """
        try:
            kind = context.kind = operation.kind
            if kind is _TOPIC and not self.broker.has_topics:
                raise errors.BadRequest(
                    'The store of this server has no topics; use a queue.',
                    title='Topics not available',
                )
            name = arguments.get(operation.container)
            if isinstance(name, str) and (kind, name, context.project_id) not in self._named:
                self._check_name(operation, name, context.project_id)
            request = msgspec.convert(arguments, operation.request)
            if operation.waits:
                result = operation.function(context, request)
            elif operation.is_long:
                with self.broker.answer_limiter.place(context.project_id) as has_waited:
                    if has_waited:
                        context.check_present()
                    result = self._call(operation, context, request)
            elif operation.reads:
                result = self._call(operation, context, request)
            else:
                result = operation.function(context, request)
        except Exception as error:
            context.take_back()
            raise _failure(operation, error) from None
        return result if isinstance(result, Reply) else Reply(operation.success[0], result)

    def _call(self, operation: Operation, context: Context, request: Any) -> Any:
        reading = self.broker.reading
        if reading is None or not operation.reads:
            return operation.function(context, request)
        with reading():
            return operation.function(context, request)

    def _admit(
        self,
        signed_request: signed_urls.SignedRequest,
        operation: Operation,
        context: Context,
        arguments: dict[str, Any],
    ) -> None:
        """Admit a request with a pre-signed URL, as a client of its project without a user."""
        if not operation.route.methods:
            raise errors.Forbidden('A pre-signed URL does not open what has no URL.')
        signed_urls.verify(
            self.broker.conf.signed_url.secret_key,
            signed_request,
            method=operation.route.methods[0],
            path=operation.route.fill(arguments),
            project=context.project_id,
        )
        context.caller = Caller(context.project_id, context.caller.client_id)
        context.environ = {}

    def _identify(self, caller: Caller) -> None:
        """Refuse a request that does not say which client asks, and for which project.

        PERF: callers that were identified once are remembered, up to a limit.
        """
        if caller.client_id is None:
            raise errors.BadRequest('The header Client-ID is required.', title='Client-ID missing')
        try:
            self.broker.limits.client_id_uuid_safe(caller.client_id)
        except ValidationFailed as error:
            raise errors.BadRequest(str(error), title='Wrong Client-ID') from None
        except ValueError:
            raise errors.BadRequest(
                'The header Client-ID must be a UUID.', title='Wrong UUID value'
            ) from None
        if not caller.project_id:
            raise errors.BadRequest(
                'The header X-Project-ID is required and must not be empty.',
                title='Project-ID missing',
            )
        try:
            self.broker.limits.project_identification(caller.project_id)
        except ValidationFailed as error:
            raise errors.BadRequest(str(error), title='Wrong Project-ID') from None
        if len(self._identified) >= MAX_IDENTIFIED:
            self._identified.clear()
        self._identified.add(caller[:2])

    def _check_name(self, operation: Operation, name: str, project: str | None) -> None:
        """Raise for what cannot be the name of a queue or topic.

        PERF: those that can are remembered, up to a number.
        """
        limits, kind = self.broker.limits, operation.kind
        check = limits.queue_identification if kind is Kind.QUEUE else limits.topic_identification
        try:
            check(name, project)
            if name.endswith('\n'):
                # Upstream's pattern lets it through.
                raise ValidationFailed('A name must not end with a line break.')
        except ValidationFailed as error:
            raise errors.BadRequest(
                f'{error} - at `$.{operation.container}`',
                title=f'Invalid {kind.value} identification',
            ) from None
        if len(self._named) >= MAX_IDENTIFIED:
            self._named.clear()
        self._named.add((kind, name, project))


def _failure(operation: Operation, error: Exception) -> errors.APIError:
    """The error document for `error`; an error that no client caused is logged."""
    match error:
        case errors.APIError():
            return error
        case msgspec.ValidationError():
            return errors.from_decoding(error)
        case ValidationFailed():
            return errors.BadRequest(str(error))
        case storage_errors.ExceptionBase():
            failure = errors.from_storage(error, operation.name)
            if isinstance(failure, errors.ServiceUnavailable) and not is_logged(error):
                LOG.error('The store failed during %s: %s', operation.name, error)
            return failure
        case _:
            LOG.error('%s failed', operation.name, exc_info=error)
            return errors.ServiceUnavailable.during(operation.name)
