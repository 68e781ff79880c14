"""The one way into an operation: check the caller, decode, call, and name what went wrong."""

from __future__ import annotations

from typing import Any

import msgspec
from oslo_log import log
from zaqar.storage import errors as storage_errors
from zaqar.transport.validation import ValidationFailed, Validator

from zaqar_gevent.api import errors
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.context import Caller, Context
from zaqar_gevent.api.operation import REGISTRY, Kind, Operation, Reply
from zaqar_gevent.api.policy import Policy

LOG = log.getLogger(__name__)

MAX_IDENTIFIED = 10_000


class Dispatcher:
    """Performs operations for the transports.

    operations: what this server offers, by name.
    """

    def __init__(self, broker: Broker, policy: Policy) -> None:
        self.broker = broker
        self.operations = REGISTRY.offered(
            admin=broker.conf.admin_mode, pooling=broker.conf.pooling
        )
        self._policy = policy
        self._identified: set[Caller] = set()

    def find(self, action: object) -> Operation:
        """The operation named `action`, which may be anything a client sent."""
        operation = self.operations.get(action) if isinstance(action, str) else None
        if operation is None:
            raise errors.UnknownAction(f'{action} is not a valid action')
        return operation

    def call(self, operation: Operation, context: Context, arguments: dict[str, Any]) -> Reply:
        """Perform `operation`.

        Raises `errors.APIError`, and nothing else, whatever the arguments and the store do.
        """
        try:
            return self._perform(operation, context, arguments)
        except errors.APIError:
            raise
        except msgspec.ValidationError as error:
            raise errors.MalformedDocument(str(error)) from None
        except ValidationFailed as error:
            raise errors.BadRequest(str(error)) from None
        except storage_errors.ExceptionBase as error:
            failure = errors.from_storage(error, operation.name)
            if isinstance(failure, errors.ServiceUnavailable):
                LOG.error('The store failed during %s: %s', operation.name, error)
            raise failure from None
        except Exception:
            LOG.exception('%s failed', operation.name)
            raise errors.ServiceUnavailable.during(operation.name) from None

    def _perform(self, operation: Operation, context: Context, arguments: dict[str, Any]) -> Reply:
        if not operation.anonymous and context.caller not in self._identified:
            self._identify(context.caller)
        if operation.policy is not None and not self._policy.allows(
            operation.policy, context.caller
        ):
            raise errors.Forbidden('You are not authorized to complete this action.')
        context.kind = operation.kind
        name = arguments.get(operation.container)
        if isinstance(name, str):
            _check_name(self.broker.limits, operation, name, context.project_id)
        request = msgspec.convert(arguments, operation.request)
        result = operation.function(context, request)
        return result if isinstance(result, Reply) else Reply(operation.success[0], result)

    def _identify(self, caller: Caller) -> None:
        """Refuse a request that does not say which client asks, and for which project.

        PERF: whoever was identified once is remembered, up to a number.
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
        if len(self._identified) >= MAX_IDENTIFIED:
            self._identified.clear()
        self._identified.add(caller)


def _check_name(limits: Validator, operation: Operation, name: str, project: str | None) -> None:
    check = (
        limits.queue_identification if operation.kind is Kind.QUEUE else limits.topic_identification
    )
    try:
        check(name, project)
    except ValidationFailed as error:
        raise errors.BadRequest(
            f'{error} - at `$.{operation.container}`',
            title=f'Invalid {operation.kind.value} identification',
        ) from None
