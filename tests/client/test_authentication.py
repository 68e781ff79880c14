"""The client of a server that wants tokens: expired, replaced in time, and refused."""

from __future__ import annotations

import itertools
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import requests
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from tests.client.waiting import wait_until
from tests.exposition import read, value_in
from tests.functional.test_authentication import IdentityService, configuration
from tests.server_process import ServerProcess
from tests.stopwatch import Stopwatch
from zaqar_gevent.client import AccessEnded, Client, Unauthorized
from zaqar_gevent.client.sync import requester

SECONDS = 60


@pytest.fixture(scope='module')
def identity_service() -> Iterator[IdentityService]:
    with IdentityService() as service:
        yield service


@pytest.fixture(scope='module')
def guarded(
    identity_service: IdentityService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that wants tokens."""
    state: pathlib.Path = tmp_path_factory.mktemp('guarded')
    policy = state / 'policy.yaml'
    policy.write_text('')
    with ServerProcess(state, config=configuration(identity_service, policy)) as process:
        yield process


@pytest.fixture
def project() -> str:
    return uuid.uuid4().hex


def expired_connections(server: ServerProcess) -> float:
    """How many connections the server has closed because their token had expired."""
    text = requests.get(f'{server.url}/metrics', timeout=SECONDS).text
    return value_in(read(text), 'websocket_closes_total', code=4003)


@pytest.mark.parametrize('transport', ['websocket', 'rest'])
def test_a_token_opens_its_project(
    guarded: ServerProcess, identity_service: IdentityService, project: str, transport: str
) -> None:
    token = identity_service.issue(project)
    with Client(guarded.url, project=project, token=token, transport=transport) as zaqar:
        zaqar.queue('orders').post('hello')
        assert [message.body for message in zaqar.queue('orders').messages()] == ['hello']


@pytest.mark.parametrize('transport', ['auto', 'websocket', 'rest'])
def test_a_refused_token_is_told_at_once(
    guarded: ServerProcess, project: str, transport: str
) -> None:
    watch = Stopwatch(guarded.pid)
    with Client(guarded.url, project=project, token='expired', transport=transport) as zaqar:
        with pytest.raises(Unauthorized):
            zaqar.queue('orders').post('hello')
        assert watch.seconds() < 5


def test_a_connection_whose_token_has_expired_is_replaced_and_nothing_is_lost(
    guarded: ServerProcess, identity_service: IdentityService, project: str
) -> None:
    """The token is not looked after in time here, so the server closes with 4003."""
    states: list[str] = []
    before = expired_connections(guarded)
    with Client(
        guarded.url,
        project=project,
        token=lambda: identity_service.issue(project, seconds=3),
        on_state=states.append,
    ) as zaqar:
        follow(zaqar, lambda: expired_connections(guarded) >= before + 2)
    assert 'polling' not in states


def test_a_token_is_replaced_in_place_before_it_expires(
    guarded: ServerProcess,
    identity_service: IdentityService,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requester, 'CHECK_SECONDS', 0.5)
    states: list[str] = []
    before = expired_connections(guarded)
    with Client(
        guarded.url,
        project=project,
        token=lambda: identity_service.issue(project, seconds=4),
        on_state=states.append,
    ) as zaqar:
        follow(zaqar, after(6))
        assert states == ['websocket']
    assert expired_connections(guarded) == before


def test_a_session_is_asked_for_a_token_before_that_of_the_connection_expires(
    guarded: ServerProcess,
    identity_service: IdentityService,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requester, 'CHECK_SECONDS', 0.5)
    monkeypatch.setattr(identity_service, 'lifetime', 4.0)
    states: list[str] = []
    issued = len(identity_service.tokens)
    before = expired_connections(guarded)
    password = v3.Password(
        auth_url=identity_service.url,
        username='user',
        password='a password',
        user_domain_id='home',
        project_id=project,
    )
    with Client(guarded.url, session=Session(password), on_state=states.append) as zaqar:
        follow(zaqar, after(6))
        assert zaqar.project == project
        assert states == ['websocket']
    assert expired_connections(guarded) == before
    assert len(identity_service.tokens) - issued >= 2


def test_a_token_that_expires_and_has_no_other_after_it_is_told(
    guarded: ServerProcess, identity_service: IdentityService, project: str
) -> None:
    token = identity_service.issue(project, seconds=4)
    with Client(guarded.url, project=project, token=token) as zaqar:
        zaqar.queue('orders').create()
        wait_until(lambda: zaqar.state != 'websocket', SECONDS, 'the connection is closed')
        with pytest.raises(Unauthorized):
            zaqar.queue('orders').create()


@pytest.mark.parametrize('subprotocol', ['zaqar.v2', 'unknown'])
def test_a_token_for_another_project_ends_a_subscription_with_a_clear_error(
    guarded: ServerProcess,
    identity_service: IdentityService,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
    subprotocol: str,
) -> None:
    """Over both envelopes."""
    monkeypatch.setattr(requester, 'SUBPROTOCOL', subprotocol)
    monkeypatch.setattr(requester, 'CHECK_SECONDS', 0.2)
    tokens = [identity_service.issue(project)]
    with Client(guarded.url, project=project, token=lambda: tokens[-1]) as zaqar:
        subscription = zaqar.queue('orders').subscribe(marker='')
        zaqar.queue('orders').post('before')
        assert [one.body for one in itertools.islice(subscription, 1)] == ['before']
        tokens.append(identity_service.issue(uuid.uuid4().hex))
        with pytest.raises(AccessEnded) as told:
            subscription.receive(timeout=SECONDS)
        assert told.value.reason == 'project_changed'
        assert str(told.value) == 'The connection has authenticated for another project.'


def test_a_token_for_another_project_ends_a_consumer_with_a_clear_error(
    guarded: ServerProcess,
    identity_service: IdentityService,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requester, 'CHECK_SECONDS', 0.2)
    tokens = [identity_service.issue(project)]
    with Client(guarded.url, project=project, token=lambda: tokens[-1]) as zaqar:
        zaqar.queue('orders').post('a job')
        consumer = zaqar.queue('orders').consume()
        message = consumer.receive(timeout=SECONDS)
        assert message is not None
        tokens.append(identity_service.issue(uuid.uuid4().hex))
        with pytest.raises(AccessEnded) as told:
            consumer.receive(timeout=SECONDS)
        assert told.value.reason == 'project_changed'
        assert consumer.unsettled == 0
        assert message.ack() is False


def test_a_token_of_another_user_of_the_project_begins_streams_anew(
    guarded: ServerProcess,
    identity_service: IdentityService,
    project: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is lost and nothing comes twice."""
    monkeypatch.setattr(requester, 'CHECK_SECONDS', 0.3)
    domain = {'id': 'home', 'name': 'Home'}
    users = itertools.cycle(['one', 'two'])
    issued = len(identity_service.tokens)

    def token() -> str:
        name = next(users)
        return identity_service.issue(project, user={'id': name, 'name': name, 'domain': domain})

    with Client(guarded.url, project=project, token=token) as zaqar:
        follow(zaqar, lambda: len(identity_service.tokens) >= issued + 5)


def after(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed."""
    over = time.monotonic() + seconds
    return lambda: time.monotonic() > over


def follow(zaqar: Client, is_enough: Callable[[], bool]) -> None:
    """Post more than ten numbers, until it is enough; each must come once and in order."""
    queue = zaqar.queue('numbers')
    queue.create()
    received: list[int] = []
    subscription = queue.subscribe(marker='')
    reader = threading.Thread(target=lambda: received.extend(one.body for one in subscription))
    reader.start()
    give_up = after(10 * SECONDS)
    posted = 0
    while posted <= 10 or not is_enough():
        assert not give_up()
        posted += 1
        queue.post(posted, ttl=300)
        time.sleep(0.05)
    wait_until(lambda: len(received) >= posted, SECONDS, 'all has come')
    subscription.close()
    reader.join(SECONDS)
    assert received == list(range(1, posted + 1))
