"""Authentication on both transports, against a real Keystone."""

from __future__ import annotations

import time

import pytest
import requests
import websocket

from tests import callers
from tests.callers import TRANSPORTS, Answer, Identity, WebSocketCaller
from tests.keystone.conftest import SHORT_SECONDS, Keystone
from tests.server_process import ServerProcess

PATIENCE_SECONDS = 120.0
# Setting up a Keystone counts, too.
pytestmark = pytest.mark.timeout(1200)


class Member:
    """A user with a role in a project of their own."""

    def __init__(self, keystone: Keystone, *roles: str) -> None:
        self._keystone = keystone
        self._project, self.project_id = keystone.new_project()
        self._name, self.user_id = keystone.new_user(self.project_id, *roles)
        self.identity = Identity(self.project_id)

    def token(self, *, short: bool = False) -> str:
        return self._keystone.token(self._name, self._project, short=short)

    def revoke(self, role: str) -> None:
        self._keystone.revoke(self.project_id, self.user_id, role)


@pytest.fixture
def member(keystone: Keystone) -> Member:
    return Member(keystone, 'member')


def connect(server: ServerProcess, member: Member, *, binary: bool = False) -> WebSocketCaller:
    return WebSocketCaller(server.websocket_url, binary=binary, identity=member.identity)


def authenticate(caller: WebSocketCaller, token: str) -> Answer:
    return caller.call('authenticate', headers={**caller.identity.headers(), 'X-Auth-Token': token})


def authenticate_briefly(
    server: ServerProcess, member: Member
) -> tuple[WebSocketCaller, str, tuple[float, float]]:
    """A connection that a short token has just opened, the token, and between which times it was
    issued.

    On a busy machine a token may have expired before it is checked. Then another is tried.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        caller = connect(server, member)
        before = time.time()
        token = member.token(short=True)
        after = time.time()
        status = authenticate(caller, token).status
        if status == 200:
            return caller, token, (before, after)
        caller.close()
        assert time.monotonic() < deadline, status


def close_code(caller: WebSocketCaller) -> int:
    opcode, payload = caller.socket.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    return int.from_bytes(payload[:2])


def rest_status(server: ServerProcess, member: Member, token: str, project_id: str = '') -> int:
    headers = {**member.identity.headers(), 'X-Auth-Token': token}
    if project_id:
        headers['X-Project-ID'] = project_id
    return requests.delete(f'{server.url}/v2/queues/q', headers=headers, timeout=60).status_code


@pytest.mark.parametrize('transport', TRANSPORTS)
def test_a_token_opens_its_project(guarded: ServerProcess, member: Member, transport: str) -> None:
    headers = member.identity.headers()
    caller = callers.connect(transport, guarded.url, guarded.websocket_url, member.identity)
    if transport == 'rest':
        headers['X-Auth-Token'] = member.token()
    else:
        assert authenticate(caller, member.token()) == (200, {'message': 'Authentified.'})
    messages = [{'body': {'sku': 42}, 'ttl': 60}]
    posted = caller.call('message_post', headers=headers, queue_name='q', messages=messages)
    assert posted.status == 201
    listed = caller.call('message_list', headers=headers, queue_name='q', echo=True)
    assert [message['body'] for message in listed.body['messages']] == [{'sku': 42}]
    caller.close()


def test_a_token_in_the_handshake_authenticates(guarded: ServerProcess, member: Member) -> None:
    caller = connect(guarded, member)
    caller.close()
    caller.socket = websocket.create_connection(
        guarded.websocket_url, header={'X-Auth-Token': member.token()}, timeout=60
    )
    assert caller.call('queue_list').status == 200
    caller.close()


def test_a_bad_token_is_refused(guarded: ServerProcess, member: Member) -> None:
    caller = connect(guarded, member)
    assert authenticate(caller, 'no such token').status == 401
    assert caller.call('queue_list').status == 403
    assert rest_status(guarded, member, 'no such token') == 401
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(guarded.websocket_url, header={'X-Auth-Token': 'x'}, timeout=60)
    assert refused.value.status_code == 401
    caller.close()


def test_another_project_stays_closed(
    guarded: ServerProcess, keystone: Keystone, member: Member
) -> None:
    other = Member(keystone, 'member')
    token = member.token()
    caller = connect(guarded, member)
    authenticate(caller, token)
    assert caller.call('queue_create', queue_name='mine').status == 201
    assert caller.call('queue_list', headers=other.identity.headers()).status == 403
    headers = {**member.identity.headers(), 'X-Auth-Token': other.token()}
    listed = requests.get(f'{guarded.url}/v2/queues', headers=headers, timeout=60)
    assert listed.json()['queues'] == []
    caller.close()


def test_policies_see_the_roles_of_the_token(guarded: ServerProcess, keystone: Keystone) -> None:
    for role, status in (('member', 403), ('manager', 204)):
        member = Member(keystone, role)
        token = member.token()
        caller = connect(guarded, member)
        authenticate(caller, token)
        claimed = {**member.identity.headers(), 'X-Roles': 'manager'}
        assert caller.call('queue_delete', headers=claimed, queue_name='q').status == status
        assert rest_status(guarded, member, token) == status
        caller.close()


def test_a_connection_ends_with_its_token(guarded: ServerProcess, member: Member) -> None:
    caller, token, (before, after) = authenticate_briefly(guarded, member)
    assert close_code(caller) == 4003
    # Keystone cuts the fraction of a second off.
    assert before + SHORT_SECONDS - 1 <= time.time() <= after + SHORT_SECONDS + 1
    assert rest_status(guarded, member, token) == 401


def test_a_token_renewed_in_place_keeps_the_connection(
    guarded: ServerProcess, member: Member
) -> None:
    lasting = member.token()
    caller, _, _ = authenticate_briefly(guarded, member)
    assert authenticate(caller, lasting).status == 200
    time.sleep(SHORT_SECONDS + 1)
    assert caller.call('queue_list').status == 200
    caller.close()


def test_a_revoked_role_ends_what_its_tokens_open(guarded: ServerProcess, member: Member) -> None:
    token = member.token()
    caller = connect(guarded, member)
    assert authenticate(caller, token).status == 200
    member.revoke('member')
    assert authenticate(caller, token).status == 401
    assert rest_status(guarded, member, token) == 401
    fresh = connect(guarded, member)
    assert authenticate(fresh, token).status == 401
    caller.close()
    fresh.close()
