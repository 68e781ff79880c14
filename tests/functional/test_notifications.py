"""Subscribers are told of what is posted: over HTTP and by mail."""

from __future__ import annotations

import email
import json
import pathlib
import queue
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from tests.callers import TRANSPORTS, RestCaller, connect
from tests.ports import free_port
from tests.server_process import ServerProcess

WAIT_SECONDS = 60
CLIENT_ID = '9d5b6a2e-5f3c-4b1e-8f5e-1d2c3b4a5968'


class Webhook:
    """A web server that keeps what is sent to it."""

    def __init__(self) -> None:
        self.received: queue.Queue[tuple[str, dict[str, str], bytes]] = queue.Queue()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers['Content-Length']))
                webhook.received.put((self.path, dict(self.headers), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self) -> tuple[str, dict[str, str], Any]:
        """The path, headers and document of the next request."""
        path, headers, body = self.received.get(timeout=WAIT_SECONDS)
        return path, headers, json.loads(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """Keeps the mail that an SMTP server is given."""

    def __init__(self) -> None:
        self.received: queue.Queue[Any] = queue.Queue()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received.put(envelope)
        return '250 OK'


@pytest.fixture(scope='module')
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()


@pytest.fixture(scope='module')
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    mailbox = Mailbox()
    port = free_port()
    controller = Controller(mailbox, hostname='127.0.0.1', port=port)
    controller.start()
    yield mailbox, port
    controller.stop()


@pytest.fixture(scope='module')
def notifying(
    tmp_path_factory: pytest.TempPathFactory, mailbox: tuple[Mailbox, int]
) -> Iterator[ServerProcess]:
    """A server whose sendmail hands the mail to the mailbox."""
    directory = tmp_path_factory.mktemp('notifying')
    sendmail = directory / 'sendmail.py'
    sendmail.write_text(
        'import email, smtplib, sys\n'
        'mail = email.message_from_file(sys.stdin)\n'
        f'with smtplib.SMTP("127.0.0.1", {mailbox[1]}) as server:\n'
        '    server.sendmail("zaqar@localhost", [mail["to"]], mail.as_string())\n'
    )
    config = f'[notification]\nsmtp_command = {sys.executable} {sendmail}\n'
    with ServerProcess(directory, config=config) as server:
        yield server


@pytest.fixture(params=TRANSPORTS)
def caller(request: pytest.FixtureRequest, notifying: ServerProcess) -> Iterator[Any]:
    caller = connect(request.param, notifying.url, notifying.websocket_url)
    yield caller
    caller.close()


def test_a_webhook_is_told_whatever_the_transport(caller: Any, webhook: Webhook) -> None:
    subscriber = f'{webhook.url}/{caller.identity.project_id}'
    created = caller.call('subscription_create', queue_name='orders', subscriber=subscriber)
    assert created.status == 201
    caller.call('message_post', queue_name='orders', messages=[{'body': {'sku': 42}, 'ttl': 300}])
    path, headers, document = webhook.take()
    assert path == f'/{caller.identity.project_id}'
    assert headers['Content-Type'] == 'application/json'
    assert document == {
        'body': {'sku': 42},
        'ttl': 300,
        'queue_name': 'orders',
        'Message_Type': 'Notification',
    }


def test_messages_are_told_one_by_one_and_in_order(caller: Any, webhook: Webhook) -> None:
    caller.call('subscription_create', queue_name='orders', subscriber=webhook.url)
    caller.call('message_post', queue_name='orders', messages=[{'body': n} for n in range(5)])
    assert [webhook.take()[2]['body'] for _ in range(5)] == list(range(5))


def test_post_data_and_headers_are_the_subscribers(caller: Any, webhook: Webhook) -> None:
    options = {
        'post_data': '{"wrapped": "$zaqar_message$"}',
        'post_headers': {'X-Secret': 'shared'},
    }
    caller.call('subscription_create', queue_name='orders', subscriber=webhook.url, options=options)
    caller.call('message_post', queue_name='orders', messages=[{'body': 'hello'}])
    _, headers, document = webhook.take()
    assert headers['X-Secret'] == 'shared'
    assert document['wrapped']['body'] == 'hello'


def test_a_subscription_made_or_ended_counts_at_once(caller: Any, webhook: Webhook) -> None:
    caller.call('message_post', queue_name='orders', messages=[{'body': 'before'}])
    created = caller.call('subscription_create', queue_name='orders', subscriber=webhook.url)
    caller.call('message_post', queue_name='orders', messages=[{'body': 'during'}])
    assert webhook.take()[2]['body'] == 'during'
    caller.call(
        'subscription_delete',
        queue_name='orders',
        subscription_id=created.body['subscription_id'],
    )
    caller.call('message_post', queue_name='orders', messages=[{'body': 'after'}])
    caller.call('subscription_create', queue_name='orders', subscriber=webhook.url)
    caller.call('message_post', queue_name='orders', messages=[{'body': 'again'}])
    assert webhook.take()[2]['body'] == 'again'


def test_the_subscribers_of_a_topic_are_told(caller: Any, webhook: Webhook) -> None:
    caller.call('topic_subscription_create', topic_name='news', subscriber=webhook.url)
    caller.call('topic_message_post', topic_name='news', messages=[{'body': 'extra'}])
    assert webhook.take()[2]['body'] == 'extra'


def test_a_mail_subscriber_gets_mail(caller: Any, mailbox: tuple[Mailbox, int]) -> None:
    caller.call(
        'subscription_create',
        queue_name='orders',
        subscriber='mailto:you@example.com',
        options={'subject': 'News', 'from': 'zaqar@example.com'},
    )
    caller.call('message_post', queue_name='orders', messages=[{'body': {'sku': 42}}])
    envelope = mailbox[0].received.get(timeout=WAIT_SECONDS)
    assert envelope.rcpt_tos == ['you@example.com']
    mail = email.message_from_bytes(envelope.content)
    assert mail['subject'] == 'News'
    assert json.loads(mail.get_payload())['body'] == {'sku': 42}


def test_a_subscriber_that_cannot_be_reached_disturbs_nobody(
    notifying: ServerProcess, webhook: Webhook
) -> None:
    caller = RestCaller(notifying.url)
    for subscriber in ('http://127.0.0.1:1/', webhook.url):
        caller.call('subscription_create', queue_name='orders', subscriber=subscriber)
    posted = caller.call('message_post', queue_name='orders', messages=[{'body': 'hello'}])
    assert posted.status == 201
    assert webhook.take()[2]['body'] == 'hello'


def test_an_ordinary_configuration_decides_as_upstream_whether_anybody_is_told(
    tmp_path: pathlib.Path, webhook: Webhook
) -> None:
    """Upstream tells nobody unless its notifier is in the message pipeline."""
    file = tmp_path / 'zaqar.sqlite'
    config = f"""
        [drivers]
        message_store = sqlite
        management_store = sqlite
        [drivers:message_store:sqlite]
        uri = sqlite:///{file}
        [drivers:management_store:sqlite]
        uri = sqlite:///{file}
        """
    told = '[storage]\nmessage_pipeline = zaqar.notification.notifier\n'
    for number, extra in enumerate(['', told]):
        directory = tmp_path / str(number)
        indented = extra.replace('\n', '\n        ')
        with ServerProcess(directory, config=f'{config}{indented}\n') as server:
            caller = RestCaller(server.url)
            caller.call('subscription_create', queue_name='q', subscriber=webhook.url)
            caller.call('message_post', queue_name='q', messages=[{'body': bool(extra)}])
            if extra:
                assert webhook.take()[2]['body'] is True
    assert webhook.received.empty()


@pytest.fixture(scope='module')
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that tells no subscriber that has not confirmed."""
    config = '[notification]\nrequire_confirmation = True\n[signed_url]\nsecret_key = key\n'
    with ServerProcess(tmp_path_factory.mktemp('asking'), config=config) as process:
        yield process


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_subscriber_is_told_once_it_has_confirmed(
    asking: ServerProcess, webhook: Webhook, transport: str
) -> None:
    caller = connect(transport, asking.url, asking.websocket_url)
    created = caller.call('subscription_create', queue_name='q', subscriber=webhook.url)
    _, _, asked = webhook.take()
    assert asked['Message_Type'] == 'SubscriptionConfirmation'
    caller.call('message_post', queue_name='q', messages=[{'body': 'unconfirmed'}])

    signed = {name: value for name, value in asked.items() if name.startswith('URL-')}
    stranger = {**signed, 'X-Project-ID': asked['X-Project-ID'], 'Client-ID': CLIENT_ID}
    confirmed = caller.call(
        'subscription_confirm',
        headers=stranger,
        queue_name='q',
        subscription_id=created.body['subscription_id'],
        **asked['SubscribeBody'],
    )
    assert confirmed.status == 204
    caller.call('message_post', queue_name='q', messages=[{'body': 'confirmed'}])
    assert webhook.take()[2]['body'] == 'confirmed'
    caller.close()
    assert asked['URL-Signature'] not in '\n'.join(asking.output)
