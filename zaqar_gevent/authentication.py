"""Keystone: who a token speaks for, over REST and over WebSocket.

One `KeystoneAuth` serves both transports: REST requests pass through it, WebSocket connections ask
it about tokens. It is keystonemiddleware's `AuthProtocol` in front of an application that merely
says yes, so what it accepts goes on untouched by webob, which would make locations absolute.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keystoneauth1 import exceptions as keystone_errors
from keystonemiddleware import auth_token  # type: ignore[import-untyped]
from oslo_config import cfg
from oslo_log import log

from zaqar_gevent.api import documents, errors
from zaqar_gevent.api.context import CREDENTIALS, Caller, Identity
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.refusals import refuse

LOG = log.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_TOKEN_VARIABLES = {'x-auth-token': 'HTTP_X_AUTH_TOKEN', 'x-service-token': 'HTTP_X_SERVICE_TOKEN'}

# What only authentication may say. A signature covers the project, so that one stays.
_IDENTITY_PREFIXES = (
    *('HTTP_X_ROLE', 'HTTP_X_USER', 'HTTP_X_DOMAIN_', 'HTTP_X_PROJECT_', 'HTTP_X_TENANT'),
    *('HTTP_X_SERVICE_', 'HTTP_X_IDENTITY_STATUS', 'HTTP_X_IS_ADMIN', 'HTTP_OPENSTACK_SYSTEM_'),
)
_PROJECT_VARIABLES = ('HTTP_X_PROJECT_ID', 'HTTP_X_TENANT_ID')

_CREDENTIAL_VARIABLES = {
    'domain_id': 'HTTP_X_DOMAIN_ID',
    'user_domain_id': 'HTTP_X_USER_DOMAIN_ID',
    'project_domain_id': 'HTTP_X_PROJECT_DOMAIN_ID',
    'service_user_id': 'HTTP_X_SERVICE_USER_ID',
    'service_user_domain_id': 'HTTP_X_SERVICE_USER_DOMAIN_ID',
    'service_project_id': 'HTTP_X_SERVICE_PROJECT_ID',
    'service_project_domain_id': 'HTTP_X_SERVICE_PROJECT_DOMAIN_ID',
}


class KeystoneAuth(auth_token.AuthProtocol):
    """Lets requests to `app` through with the identity of their token, or refuses them.

    What needs no token passes without any identity: the list of versions, and pre-signed URLs,
    which the API verifies.
    """

    def __init__(self, app: Application, conf: cfg.ConfigOpts) -> None:
        """Raises `ConfigurationError` where [keystone_authtoken] cannot work."""
        try:
            super().__init__(_confirm, {'oslo_config_config': conf})
        except (keystone_errors.ClientException, cfg.Error) as error:
            raise ConfigurationError(f'[keystone_authtoken] cannot work: {error}') from None
        self._protected = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get('PATH_INFO') == '/' or 'HTTP_URL_SIGNATURE' in environ:
            _strip_identity(environ)
        else:
            answer = self._ask(environ)
            if CREDENTIALS not in environ:
                if answer.status.startswith('503'):
                    # The middleware's own has a text for a body.
                    retry_after = ('Retry-After', str(errors.RETRY_AFTER_SECONDS))
                    return refuse(start_response, _unavailable(), retry_after)
                start_response(answer.status, answer.headers)
                return answer.body
        return self._protected(environ, start_response)

    def identify(self, headers: Mapping[str, str]) -> Identity:
        """The identity that the token in these headers stands for.

        headers: by lower-case name; of them, X-Auth-Token and X-Service-Token are read.

        Raises `errors.Unauthorized`, or `errors.ServiceUnavailable` where Keystone cannot be asked.
        """
        tokens = {name: headers[name] for name in _TOKEN_VARIABLES if name in headers}
        environ = _environ_of(tokens)
        answer = self._ask(environ)
        if CREDENTIALS in environ:
            return _identity_in(environ)._replace(tokens=tokens)
        if answer.status.startswith('401'):
            raise errors.Unauthorized('Authentication failed.')
        raise _unavailable()

    def _ask(self, environ: Environ) -> _Answer:
        """The middleware's answer; CREDENTIALS are in `environ` if it accepts."""
        answer = _Answer()
        try:
            answer.body = list(super().__call__(environ, answer.start))
        except Exception as error:
            LOG.error('A token cannot be validated: %s', error)
            environ.pop(CREDENTIALS, None)
            answer.report(_unavailable())
        return answer


class _Answer:
    """A WSGI answer, held back."""

    def __init__(self) -> None:
        self.status = ''
        self.headers: list[tuple[str, str]] = []
        self.body: list[bytes] = []

    def start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        """A WSGI `start_response`."""
        self.status = status
        self.headers = headers

    def report(self, error: errors.APIError) -> None:
        """Answer with an error."""
        self.body = [documents.encode_json(error.to_document())]
        length = ('Content-Length', str(len(self.body[0])))
        self.start(f'{error.status} {error.title}', [('Content-Type', 'application/json'), length])


def _unavailable() -> errors.ServiceUnavailable:
    return errors.ServiceUnavailable(
        'The identity service cannot be asked. Please try again in a few seconds.'
    )


def _confirm(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The application behind the middleware: keeps what it found out.

    With `delay_auth_decision` it lets everybody through; nobody here decides later.
    """
    if environ.get('HTTP_X_IDENTITY_STATUS') == 'Confirmed':
        environ[CREDENTIALS] = _credentials_in(environ)
        start_response('204 No Content', [])
        return []
    refusal = _Answer()
    refusal.report(errors.Unauthorized('Authentication failed.'))
    start_response(refusal.status, refusal.headers)
    return refusal.body


def _credentials_in(environ: Environ) -> tuple[tuple[str, Any], ...]:
    """The credentials that policy rules may use beside user, project and roles; hashable."""
    found: dict[str, Any] = {
        name: environ[variable]
        for name, variable in _CREDENTIAL_VARIABLES.items()
        if environ.get(variable)
    }
    found['is_admin_project'] = environ.get('HTTP_X_IS_ADMIN_PROJECT') == 'True'
    # From the user's token: the header of this name is overwritten by that of a service token.
    if environ['keystone.token_info']['token'].get('system', {}).get('all'):
        found['system_scope'] = 'all'
    service_roles = environ.get('HTTP_X_SERVICE_ROLES')
    if service_roles:
        found['service_roles'] = tuple(service_roles.split(','))
    return tuple(found.items())


def _strip_identity(environ: Environ) -> None:
    """Take away what the client says it is."""
    for name in list(environ):
        if name.startswith(_IDENTITY_PREFIXES) and name not in _PROJECT_VARIABLES:
            del environ[name]


def _environ_of(tokens: Mapping[str, str]) -> Environ:
    """A small request, for the middleware to look at."""
    return {
        'REQUEST_METHOD': 'GET',
        'SCRIPT_NAME': '',
        'PATH_INFO': '/v2/ws',
        'SERVER_NAME': 'localhost',
        'SERVER_PORT': '80',
        'SERVER_PROTOCOL': 'HTTP/1.1',
        'wsgi.url_scheme': 'http',
        **{_TOKEN_VARIABLES[name]: token for name, token in tokens.items()},
    }


def _identity_in(environ: Environ) -> Identity:
    token = environ['keystone.token_info']['token']
    if (token.get('application_credential') or {}).get('access_rules') is not None:
        # Its rules name methods and paths of single requests; a connection would go round them.
        LOG.info('A token restricted by access rules was refused for a WebSocket connection')
        raise errors.Unauthorized('Authentication failed.')
    expires = datetime.datetime.fromisoformat(token['expires_at'])
    caller = Caller.of(
        environ['HTTP_X_PROJECT_ID'],
        None,
        environ['HTTP_X_USER_ID'],
        environ['HTTP_X_ROLES'],
    )._replace(credentials=environ[CREDENTIALS])
    return Identity(caller, expires.timestamp(), environ)
