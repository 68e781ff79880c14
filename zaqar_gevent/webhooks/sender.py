"""One try to tell a subscriber of one notification over HTTP."""

from __future__ import annotations

import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gevent

from zaqar_gevent.api import signatures, subscribers
from zaqar_gevent.api.delivery import Notification, Subscription
from zaqar_gevent.api.loops import HEADER as PATH_HEADER
from zaqar_gevent.api.networks import Networks
from zaqar_gevent.api.subscribers import Target
from zaqar_gevent.api.tracing import PARENT, STATE, TraceContext
from zaqar_gevent.webhooks.answers import Answer, Head, Malformed
from zaqar_gevent.webhooks.backlog import DELIVERED, Outcome
from zaqar_gevent.webhooks.connections import ConnectionPool, WebhookConnection
from zaqar_gevent.webhooks.resolver import Resolver, Unresolved

MAX_REDIRECTS = 10

GROUP_HEADER = 'Zaqar-Group'
"""The header with the group of a message."""

ATTRIBUTE_PREFIX = 'Zaqar-Attribute-'
"""The prefix of headers that carry attributes of messages."""

_REST_SECONDS = 0.5
_ONE_WRITE_BYTES = 65_536
# All that a header's value may have but space, quote and percent sign.
_PLAIN = ''.join(map(chr, {*range(0x21, 0x7F)} - {ord('"'), ord('%')}))
_JSON = {'Content-Type': 'application/json'}
_REDIRECTS = frozenset({301, 302, 307, 308})
# The subscriber is there, but cannot take it now; other refusals are final, as for upstream.
_TRY_AGAIN = frozenset({408, 425, 429})
# What a redirect to somebody else does not take along.
_PRIVATE_HEADERS = frozenset({'authorization', 'cookie', 'host', 'x-auth-token'})

Token = Callable[[str], str]


class Settings(NamedTuple):
    """seconds: for one try, from looking up the name to the status. redirects: that are followed.
    user_agent: how the server calls itself.
    """

    seconds: float
    redirects: int
    user_agent: str


class Refused(Exception):
    """It can never work as it is."""


class Request(NamedTuple):
    """A request to send: headers by their lower-case name, with the name as it is written."""

    headers: dict[str, tuple[str, str]]
    body: Sequence[bytes]


class Sender:
    """Sends notifications to webhooks.

    networks: where they may go. token: gets a token for a trust, by its id; raises what it likes.
    """

    def __init__(
        self,
        settings: Settings,
        networks: Networks,
        resolver: Resolver,
        connections: ConnectionPool,
        token: Token,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._networks = networks
        self._resolver = resolver
        self._connections = connections
        self._token = token
        self._now = now

    def send(self, row: Subscription, notification: Notification, project: str | None) -> Outcome:
        """Try once; whatever happens is an outcome."""
        timeout = gevent.Timeout(self._settings.seconds)
        timeout.start()
        try:
            exchange = self._send(row, notification, project)
        except gevent.Timeout as fired:
            if fired is not timeout:
                raise
            return Outcome('failed', f'no answer within {self._settings.seconds:g} s')
        except Refused as error:
            return Outcome('refused', str(error))
        except (OSError, Malformed) as error:
            return Outcome('failed', _describe(error))
        finally:
            timeout.close()
        self._settle(exchange)
        return _judge(exchange.head)

    def _send(self, row: Subscription, notification: Notification, project: str | None) -> Exchange:
        target = _target(row['subscriber'])
        request = self._request(row, target, notification)
        exchange = self._exchange(target, request, project)
        for _ in range(self._settings.redirects):
            if exchange.head.status not in _REDIRECTS:
                break
            exchange.connection.close()
            target, request = _redirected(target, request, exchange.head)
            exchange = self._exchange(target, request, project)
        return exchange

    def _settle(self, exchange: Exchange) -> None:
        """Keep the connection, if the rest of the answer comes soon and is short."""
        can_be_kept = False
        try:
            with gevent.Timeout(_REST_SECONDS, False):
                can_be_kept = exchange.answer.read_rest()
        except OSError:
            # What matters of the answer has been read.
            pass
        finally:
            if can_be_kept:
                self._connections.keep(exchange.connection)
            else:
                exchange.connection.close()

    def _request(self, row: Subscription, target: Target, notification: Notification) -> Request:
        """The request of a subscription; raises `Refused` for options that cannot be used."""
        options = row.get('options') or {}
        try:
            body = list(subscribers.body_parts(options.get('post_data'), notification.body))
            given = subscribers.read_headers(_own(options.get('post_headers') or {}))
            secret = options.get(signatures.SECRET)
            keys = signatures.read_secrets(secret) if secret is not None else []
        except (ValueError, TypeError, AttributeError) as error:
            raise Refused(f'its options cannot be used: {error}') from None
        headers = {'User-Agent': self._settings.user_agent, 'Accept': '*/*', **_JSON}
        if row['subscriber'].lower().startswith(subscribers.TRUST):
            headers['X-Auth-Token'] = self._token_of(options)
        named = {name.lower(): (name, value) for name, value in {**headers, **given}.items()}
        if target.authorization is not None:
            named['authorization'] = ('Authorization', target.authorization)
        if keys:
            signed = signatures.headers(keys, notification.ident, int(self._now()), body)
            named.update({name: (name, value) for name, value in signed.items()})
        if notification.attributes:
            _add_attributes(named, notification.attributes)
        if notification.group is not None:
            named[GROUP_HEADER.lower()] = (GROUP_HEADER, _quote(notification.group))
        if notification.passed:
            named[PATH_HEADER.lower()] = (PATH_HEADER, notification.passed)
        return Request(named, body)

    def _token_of(self, options: Mapping[str, Any]) -> str:
        trust_id = options.get('trust_id')
        if not isinstance(trust_id, str):
            raise Refused('the subscription has no trust')
        try:
            return self._token(trust_id)
        except Exception as error:
            raise OSError(f'no token for its trust: {type(error).__name__}') from None

    def _exchange(self, target: Target, request: Request, project: str | None) -> Exchange:
        """Send a request and read the head of the answer, over a kept connection if possible."""
        connection = self._connections.take(target)
        if connection is not None:
            try:
                return _ask(connection, target, request)
            except _Stale:
                # The peer closed it while it was not in use, and has not read the request.
                pass
        return _ask(self._open(target, project), target, request)

    def _open(self, target: Target, project: str | None) -> WebhookConnection:
        """Connect to an address of the target that webhooks may go to."""
        places = self._resolver.places(target.host, target.port, project)
        refusals = [self._networks.refusal(place[1][0]) for place in places]
        allowed = [place for place, refusal in zip(places, refusals, strict=True) if not refusal]
        if not allowed:
            raise Refused(str(refusals[0]))
        return self._connections.open(target, allowed)


class _Stale(Exception):
    """A kept connection was closed by the peer."""


class Exchange(NamedTuple):
    """A request that was answered. connection: still to be closed or kept."""

    head: Head
    answer: Answer
    connection: WebhookConnection


def _ask(connection: WebhookConnection, target: Target, request: Request) -> Exchange:
    """Send a request and read the head of the answer; raises `OSError` or `Malformed`."""
    answer = Answer(connection.sock)
    try:
        _write(connection.sock, target, request)
        return Exchange(answer.read_head(), answer, connection)
    except BaseException as error:
        # A time limit is no Exception.
        connection.close()
        if isinstance(error, ConnectionError) and connection.is_used and not answer.has_begun:
            raise _Stale from error
        raise


def _write(sock: Any, target: Target, request: Request) -> None:
    size = sum(map(len, request.body))
    named = {'host': ('Host', target.authority), **request.headers}
    lines = [f'{name}: {value}\r\n' for name, value in named.values()]
    text = f'POST {target.path} HTTP/1.1\r\n{"".join(lines)}Content-Length: {size}\r\n\r\n'
    head = text.encode('latin-1')
    if size <= _ONE_WRITE_BYTES:
        sock.sendall(b''.join([head, *request.body]))
        return
    for part in (head, *request.body):
        sock.sendall(part)


def _target(subscriber: str) -> Target:
    try:
        return subscribers.parse_target(subscriber)
    except ValueError as error:
        raise Refused(str(error)) from None


def _add_attributes(named: dict[str, tuple[str, str]], attributes: Mapping[str, str]) -> None:
    """Send the attributes of a message as headers, and its trace by the names of W3C as well.

    Values are percent-encoded as in the HTTP binding of CloudEvents.
    """
    for name, value in attributes.items():
        header = f'{ATTRIBUTE_PREFIX}{name}'
        named[header.lower()] = (header, _quote(value))
    trace = TraceContext.of(attributes.get(PARENT), attributes.get(STATE))
    if trace is not None:
        for name, value in trace.attributes.items():
            named.setdefault(name, (name, value))


def _quote(value: str) -> str:
    return urllib.parse.quote(value, safe=_PLAIN)


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are a client's to set; upstream takes any."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() not in subscribers.RESERVED_HEADERS
    }


def _redirected(target: Target, request: Request, head: Head) -> tuple[Target, Request]:
    """Where a redirect leads, and what is sent there; raises `Refused`."""
    base = f'{target.scheme}://{target.authority}{target.path}'
    try:
        there = subscribers.parse_target(urllib.parse.urljoin(base, head.location or ''))
    except ValueError:
        raise Refused('it redirects to no URL') from None
    if there.scheme != 'https' and target.scheme == 'https':
        raise Refused('it redirects from https to http')
    if there.origin == target.origin:
        return there, request
    kept = {
        name: header for name, header in request.headers.items() if name not in _PRIVATE_HEADERS
    }
    return there, request._replace(headers=kept)


def _judge(head: Head) -> Outcome:
    """The outcome that an answer means: as upstream, only server errors are tried again."""
    status = head.status
    reason = f'it answered {status}'
    if 200 <= status < 300:
        return DELIVERED
    if status in _REDIRECTS:
        return Outcome('refused', f'{reason}, a redirect that is not followed')
    if status >= 500 or status < 200 or status in _TRY_AGAIN:
        return Outcome('failed', reason, _seconds(head.retry_after))
    return Outcome('refused', reason)


def _seconds(retry_after: str | None) -> float:
    """The header Retry-After as seconds; its other form, a date, is not read."""
    if retry_after is not None and retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:6])
    return 0.0


def _describe(error: Exception) -> str:
    match error:
        case Malformed() | Unresolved():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f'its certificate is not valid: {error.verify_message}'
        case ssl.SSLError():
            return f'TLS failed: {error.reason}'
        case TimeoutError():
            return 'no connection in time'
        case ConnectionRefusedError():
            return 'the connection was refused'
        case ConnectionError():
            return 'the connection was closed without an answer'
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)
