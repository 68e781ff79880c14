"""Whatever happens, the logs hold no token and no message."""

from __future__ import annotations

import pathlib
from contextlib import ExitStack, suppress

import requests

from tests.callers import Identity
from tests.faults.client import DIALECTS, Client, HandshakeRefused
from tests.faults.frames import FIN, RSV1, Opcode, frame, header
from tests.functional.test_authentication import IdentityService, configuration
from tests.server_process import ServerProcess

BODY = 'what-nobody-else-may-read'
WRONG_TOKEN = 'token-that-nobody-issued'
PROJECT = 'secretive'


def test_no_token_and_no_message_is_in_any_log(tmp_path: pathlib.Path) -> None:
    access_log = tmp_path / 'access.log'
    with IdentityService() as service:
        policy = tmp_path / 'policy.yaml'
        policy.write_text('"queues:create": "role:nobody"\n')
        config = '\n'.join(
            [
                configuration(service, policy),
                '[DEFAULT]',
                'use_stderr = True',
                '[drivers:transport:gevent]',
                f'access_log = {access_log}',
            ]
        )
        token = service.issue(PROJECT)
        with ServerProcess(tmp_path, config=config) as server:
            say_much(server, token)
            log = '\n'.join(server.output)
        log += '\n'.join(server.output)
    written = log + access_log.read_text()
    assert 'message_post' in written
    for secret in (token, WRONG_TOKEN, BODY):
        assert secret not in written, secret


def say_much(server: ServerProcess, token: str) -> None:
    """Use tokens and send messages in every way there is, right and wrong."""
    identity = Identity(PROJECT)
    for secret in (token, WRONG_TOKEN):
        ask_rest(server, {**identity.headers(), 'X-Auth-Token': secret})
        for dialect in DIALECTS:
            with ExitStack() as stack, suppress(HandshakeRefused):
                headers = {'X-Auth-Token': secret}
                guest = Client(server.port, dialect, headers=headers, identity=identity)
                stack.enter_context(guest)
                post(guest)
            with Client(server.port, dialect, identity=identity) as client:
                authenticate(client, secret)
                post(client)
                misbehave(client)


def ask_rest(server: ServerProcess, headers: dict[str, str]) -> None:
    url = f'{server.url}/v2/queues/q/messages'
    for body in (
        {'messages': [{'body': BODY}]},
        {'messages': [{'body': BODY, 'ttl': BODY}]},
        {'messages': BODY},
    ):
        requests.post(url, json=body, headers=headers, timeout=10)
    requests.post(url, data=f'{{"messages": {BODY}', headers=headers, timeout=10)
    requests.put(f'{server.url}/v2/queues/r', headers=headers, timeout=10)


def authenticate(client: Client, token: str) -> None:
    action = 'hello' if client.dialect.subprotocol else 'authenticate'
    for name in (action, 'authenticate', 'nonsense'):
        headers = {**client.identity.headers(), 'X-Auth-Token': token, 'URL-Signature': token}
        if name == action:
            del headers['URL-Signature']
        client.send(client.frame({'id': 0, 'action': name, 'headers': headers, 'body': {}}))
        client.answer()


def post(client: Client) -> None:
    for messages in ([{'body': BODY}], [{'body': BODY, 'ttl': BODY}], BODY):
        client.ask('message_post', queue_name='q', messages=messages)


def misbehave(client: Client) -> None:
    """Send what is no document, and at last what is no frame."""
    client.send(frame(client.dialect.opcode, b'{"body": ' + BODY.encode()))
    client.answer()
    client.send(header(Opcode.TEXT | FIN | RSV1, len(BODY)) + BODY.encode())
    assert client.status_code().code == 1002
