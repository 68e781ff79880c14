"""What becomes of requests when connections die, stall or are refused."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.sync.server import ServerConnection

from tests.client.waiting import wait_until
from tests.ports import free_port
from tests.stopwatch import Stopwatch
from tests.unit.client.scripted_server import ScriptedServer, SilentHost, dies
from zaqar_gevent.client import (
    APIError,
    BadRequest,
    BodyTooLarge,
    Client,
    ClientClosed,
    ConnectionLost,
    NotFound,
    OutcomeUnknown,
    Timeout,
    Unauthorized,
    aio,
)


def client_of(server: ScriptedServer, **options: Any) -> Client:
    options = {'transport': 'websocket', 'encoding': 'json', 'timeout': 10.0, **options}
    return Client(server.url, project='demo', **options)


def once(first: Callable[..., Any], then: tuple[int, Any]) -> Callable[..., Any]:
    """A script that does `first` over the first request and answers all others."""
    had: list[int] = []

    def script(connection: ServerConnection, request: dict[str, Any]) -> Any:
        had.append(1)
        return first(connection, request) if len(had) == 1 else then

    return script


@contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    """A port that takes connections and says nothing."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        yield listener, listener.getsockname()[1]


def test_what_may_be_repeated_is_when_the_connection_dies_over_it() -> None:
    answer = (200, {'messages': [], 'marker': 'm'})
    with ScriptedServer(once(dies, answer)) as server, client_of(server) as client:
        assert client.call('message_list', queue_name='q') == answer[1]
        assert len(server.asked('message_list')) == 2


@pytest.mark.parametrize(
    ('action', 'arguments'),
    [
        ('claim_create', {'queue_name': 'q'}),
        ('message_delete_many', {'queue_name': 'q', 'pop': 1}),
        ('something_of_the_future', {}),
    ],
)
def test_what_may_not_be_repeated_is_reported_as_unknown(
    action: str, arguments: dict[str, Any]
) -> None:
    with ScriptedServer(once(dies, (200, {}))) as server, client_of(server) as client:
        with pytest.raises(OutcomeUnknown):
            client.call(action, **arguments)
        assert client.call(action, **arguments) == {}
        assert len(server.asked(action)) == 2


def test_a_post_is_repeated_with_the_same_id_where_the_server_knows_it() -> None:
    answer = (201, {'message_ids': ['1']})
    with ScriptedServer(once(dies, answer)) as server, client_of(server) as client:
        assert client.queue('q').post('body') == ['1']
        assert client.queue('q').post('body') == ['1']
        first, again, other = [one['body']['post_id'] for one in server.asked('message_post')]
        assert first == again
        assert other != first


def test_a_post_is_not_repeated_where_the_server_does_not_know_it() -> None:
    script = once(dies, (201, {'message_ids': ['1']}))
    with (
        ScriptedServer(script, idempotency_seconds=0) as server,
        client_of(server) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            client.queue('q').post('body')
        [request] = server.asked('message_post')
        assert 'post_id' not in request['body']


def test_a_post_is_not_repeated_when_the_server_may_have_forgotten_it() -> None:
    def dies_late(connection: ServerConnection, request: dict[str, Any]) -> None:
        time.sleep(0.3)
        dies(connection, request)

    with (
        ScriptedServer(once(dies_late, (201, {})), idempotency_seconds=0.2) as server,
        client_of(server) as client,
        pytest.raises(OutcomeUnknown),
    ):
        client.queue('q').post('body')
    assert len(server.asked('message_post')) == 1


def test_an_answer_that_does_not_come_is_a_timeout_and_the_connection_stays() -> None:
    with (
        ScriptedServer(once(lambda *_: None, (204, {}))) as server,
        client_of(server, timeout=0.3) as client,
    ):
        with pytest.raises(Timeout):
            client.call('ping_node')
        client.timeout = 60.0
        client.call('ping_node')
        assert len(server.requests) == 1


def test_a_request_whose_time_is_over_tells_of_no_negative_seconds() -> None:
    with ScriptedServer(lambda *_: None) as server:
        with client_of(server) as client:
            client.capabilities()
            client.timeout = 0.0
            with pytest.raises(Timeout, match=r'^No answer in time\.$'):
                client.queue('q').purge()

        async def ask() -> None:
            options: dict[str, Any] = {'transport': 'websocket', 'encoding': 'json'}
            async with aio.Client(server.url, project='demo', **options) as client:
                await client.capabilities()
                client.timeout = 0.0
                with pytest.raises(Timeout, match=r'^No answer in time\.$'):
                    await client.queue('q').purge()

        asyncio.run(ask())


def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    is_too_late = threading.Event()

    def late(connection: ServerConnection, request: dict[str, Any]) -> tuple[int, Any]:
        if request['body']['message_id'] == 'slow':
            assert is_too_late.wait(60)
        return 200, {'messages': {'id': request['body']['message_id'], 'body': 0}}

    with ScriptedServer(late) as server, client_of(server, timeout=0.2) as client:
        with pytest.raises(Timeout):
            client.queue('q').get('slow')
        is_too_late.set()
        client.timeout = 60.0
        assert client.queue('q').get('fast').id == 'fast'


def test_answers_may_come_in_any_order() -> None:
    gathered = threading.Barrier(8, timeout=60)
    held: list[dict[str, Any]] = []

    def reversing(connection: ServerConnection, request: dict[str, Any]) -> None:
        held.append(request)
        if len(held) == 8:
            for one in reversed(held):
                body = {'name': one['body']['queue_name']}
                connection.send(json.dumps({'id': one['id'], 'status': 200, 'body': body}))

    with ScriptedServer(reversing) as server, client_of(server) as client:
        client_names: dict[str, Any] = {}

        def ask(name: str) -> None:
            gathered.wait()
            client_names[name] = client.queue(name).get_metadata()

        threads = [threading.Thread(target=ask, args=(f'q{number}',)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert client_names == {f'q{number}': {'name': f'q{number}'} for number in range(8)}
        assert len(server.requests) == 1


@pytest.mark.parametrize('later', [('b',), ('a', 'b'), ('b', 'long'), ('b', 'long', 'a')])
def test_threads_that_are_answered_together_need_not_ask_again_together(
    later: tuple[str, ...],
) -> None:
    """Requests may be sent together, but none waits for one that does not come."""
    asked: list[int] = []

    def in_pairs(connection: ServerConnection, request: dict[str, Any]) -> Any:
        if request['action'] != 'first':
            return 200, {'of': request['action']}
        asked.append(request['id'])
        if len(asked) == 2:
            answers = [{'id': one, 'status': 200, 'body': {'of': 'first'}} for one in asked]
            frames = [Frame(Opcode.TEXT, json.dumps(one).encode()) for one in answers]
            connection.socket.sendall(b''.join(one.serialize(mask=False) for one in frames))
        return None

    def ask(actions: tuple[str, ...]) -> None:
        for action in ('first', *actions):
            padding = {'padding': 'x' * 20_000} if action == 'long' else {}
            answers.append(client.call(action, **padding)['of'])

    answers: list[str] = []
    with ScriptedServer(in_pairs) as server, client_of(server) as client:
        others = threading.Thread(target=ask, args=[()])
        watch = Stopwatch()
        others.start()
        ask(later)
        others.join()
        assert watch.seconds() < 1
    assert sorted(answers) == sorted(['first', 'first', *later])


def test_a_server_that_falls_silent_is_given_up() -> None:
    with (
        ScriptedServer(lambda *_: (204, {})) as server,
        SilentHost(server.port) as way,
        Client(
            way.url, project='p', transport='websocket', encoding='json', keepalive=1.0
        ) as client,
    ):
        client.call('ping_node')
        time.sleep(2.5)
        client.call('ping_node')
        assert len(server.requests) == 1
        way.shut()
        began = time.monotonic()
        client.call('ping_node')
        assert 0.5 < time.monotonic() - began < 20
        assert len(server.requests) == 2


def test_a_port_that_says_nothing_leads_to_rest_after_three_seconds() -> None:
    with listening() as (_, port):
        states: list[str] = []
        began = time.monotonic()
        with Client(f'http://127.0.0.1:{port}', project='p', on_state=states.append) as client:
            wait_until(lambda: client.state == 'polling', 60, 'it polls')
            assert time.monotonic() - began > 2.9
        assert states == ['polling', 'closed']


def test_a_server_that_is_not_there_is_a_lost_connection() -> None:
    port = free_port()
    for transport in ('auto', 'websocket', 'rest'):
        with (
            Client(
                f'http://127.0.0.1:{port}', project='p', transport=transport, timeout=0.5
            ) as client,  # type: ignore[arg-type]
            pytest.raises(ConnectionLost, match='reached'),
        ):
            client.queue('q').create()


def test_a_token_that_is_refused_is_told_to_whoever_asks() -> None:
    with ScriptedServer(lambda *_: (204, {})) as server:
        server.hello_status = 401
        with client_of(server, token='wrong') as client:
            with pytest.raises(Unauthorized) as refused:
                client.call('ping_node')
            assert refused.value.code == 'unauthorized'
            server.hello_status = 200
            wait_until(lambda: client.state == 'websocket', 60, 'it is let in')
            client.call('ping_node')
        assert server.asked('hello')[0]['headers']['X-Auth-Token'] == 'wrong'


def test_a_new_token_is_given_to_the_connection_in_place() -> None:
    tokens = iter(['first', 'first', 'second', 'second', 'second'])
    with (
        ScriptedServer(lambda *_: (200, {'message': 'Authentified.'})) as server,
        client_of(server, token=lambda: next(tokens)) as client,
    ):
        client.call('ping_node')
        connection = client._requester.connector.connection
        assert connection is not None
        for _ in range(3):
            client._requester._refresh(connection)
        [authenticate] = server.asked('authenticate')
        assert authenticate['headers']['X-Auth-Token'] == 'second'
        assert len(server.requests) == 1


def test_a_message_that_is_too_long_for_the_client_ends_the_connection() -> None:
    script = once(lambda *_: (200, {'name': 'x' * 2000}), (200, {'name': 'x'}))
    with ScriptedServer(script) as server, client_of(server, max_message_size=1500) as client:
        assert client.queue('q').get_metadata() == {'name': 'x'}
        assert len(server.requests) == 2


def test_what_cannot_be_written_is_the_callers_mistake_and_costs_nothing() -> None:
    with (
        ScriptedServer(lambda *_: (201, {'message_ids': []})) as server,
        client_of(server) as client,
    ):
        for encoding_error in (object(), float('nan')):
            with pytest.raises((TypeError, ValueError)):
                client.queue('q').post(encoding_error)
        assert client.queue('q').post('fine') == []
        assert len(server.requests) == 1


REFUSAL = {'code': 'malformed_document', 'title': 'Bad', 'description': 'Unreadable.'}


def test_a_refusal_without_an_id_is_that_of_the_only_request() -> None:
    def refuse(connection: ServerConnection, request: dict[str, Any]) -> None:
        connection.send(json.dumps({'id': None, 'status': 400, 'body': REFUSAL}))

    with ScriptedServer(refuse) as server, client_of(server) as client:
        began = time.monotonic()
        with pytest.raises(BadRequest, match='Unreadable'):
            client.queue('q').post('body')
        assert time.monotonic() - began < 20


def test_a_refusal_without_an_id_is_given_to_none_of_several(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held: list[dict[str, Any]] = []

    def refuse_one(connection: ServerConnection, request: dict[str, Any]) -> None:
        held.append(request)
        if len(held) == 3:
            connection.send(json.dumps({'id': None, 'status': 400, 'body': REFUSAL}))
            for one in held[:2]:
                body = {'name': one['body']['queue_name']}
                connection.send(json.dumps({'id': one['id'], 'status': 200, 'body': body}))

    with ScriptedServer(refuse_one) as server, client_of(server, timeout=4.0) as client:
        outcomes: dict[str, Any] = {}

        def ask(name: str) -> None:
            try:
                outcomes[name] = client.queue(name).get_metadata()
            except Exception as error:
                outcomes[name] = type(error)

        client.capabilities()
        threads = [threading.Thread(target=ask, args=(f'q{number}',)) for number in range(3)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_until(lambda: len(held) > number, 60, 'it is asked')  # noqa: B023
        for thread in threads:
            thread.join(60)
        assert outcomes == {'q0': {'name': 'q0'}, 'q1': {'name': 'q1'}, 'q2': Timeout}
        assert len(server.requests) == 1
    assert 'without an id (status 400) while 3 requests waited' in caplog.text


def test_a_request_that_is_longer_than_the_server_takes_is_refused_before_it_is_sent() -> None:
    posted = (201, {'message_ids': ['1']})
    with (
        ScriptedServer(lambda *_: posted, max_message_size=2000) as server,
        client_of(server) as client,
    ):
        # There is no connection yet, so no limit is known.
        with pytest.raises(BodyTooLarge, match=r'has 2\d\d\d bytes.*at most 2000 ') as refused:
            client.queue('q').post('x' * 2000)
        assert (refused.value.status, refused.value.code) == (413, 'body_too_large')
        assert client.queue('q').post('x' * 1000) == ['1']
        assert len(server.asked('message_post')) == 1
        assert len(server.requests) == 1


def test_a_request_over_which_the_server_closes_for_its_length_is_not_repeated() -> None:
    held: list[str] = []

    def closing(connection: ServerConnection, request: dict[str, Any]) -> Any:
        name = request['body']['queue_name']
        held.append(name)
        if name == 'long':
            connection.close(1009, 'Too long.')
        return (200, {'name': name}) if held.count(name) > 1 else None

    with ScriptedServer(closing) as server, client_of(server) as client:
        outcomes: list[Any] = []

        def ask() -> None:
            outcomes.append(client.queue('short').get_metadata())

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: bool(held), 60, 'it is asked')
        with pytest.raises(BodyTooLarge, match=r'has 3\d\d\d bytes.*1009'):
            client.call('message_post', queue_name='long', messages=[{'body': 'x' * 3000}])
        thread.join(60)
        assert outcomes == [{'name': 'short'}]
        assert (held.count('long'), held.count('short')) == (1, 2)
        assert client.state == 'websocket'
        assert len(server.requests) == 2


def test_errors_have_what_the_server_says() -> None:
    body = {'code': 'not_found', 'title': 'Not found', 'description': 'No such queue.'}
    with (
        ScriptedServer(lambda *_: (404, body)) as server,
        client_of(server) as client,
        pytest.raises(NotFound) as error,
    ):
        client.queue('q').get_metadata()
    found = error.value
    assert (found.status, found.code, found.title, found.description) == (404, *body.values())
    assert isinstance(found, APIError)


def test_what_waits_is_woken_when_the_client_is_closed() -> None:
    with ScriptedServer(lambda *_: None) as server:
        client = client_of(server)
        outcome: list[BaseException] = []

        def ask() -> None:
            try:
                client.call('ping_node')
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: bool(server.asked('ping_node')), 60, 'it is asked')
        client.close()
        thread.join(60)
        assert isinstance(outcome[0], ClientClosed | ConnectionLost)
        with pytest.raises(ClientClosed):
            client.call('ping_node')
        assert client.state == 'closed'


def test_a_server_that_stops_says_when_to_come_back() -> None:
    def closing(connection: ServerConnection, request: dict[str, Any]) -> tuple[int, Any]:
        connection.send('{"push": "closing", "reason": "Bye.", "reconnect_after_ms": 300}')
        return 204, {}

    states: list[str] = []
    with (
        ScriptedServer(closing) as server,
        client_of(server, on_state=states.append) as client,
    ):
        client.call('ping_node')
        connection = client._requester.connector.connection
        assert connection is not None
        began = time.monotonic()
        connection.cut()
        wait_until(lambda: 'connecting' in states, 60, 'it notices')
        client.capabilities()
        assert 0.3 <= time.monotonic() - began < 20
        assert len(server.requests) == 2
