"""How REST requests are observed, and what is served beside the API."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest
import webob
from oslo_config import cfg
from oslo_middleware.healthcheck.opts import HEALTHCHECK_OPTS

from tests.exposition import read, value_in
from zaqar_gevent import conf as configuration
from zaqar_gevent import metrics, options
from zaqar_gevent.access_log import AccessLog
from zaqar_gevent.api.broker import Broker
from zaqar_gevent.api.dispatcher import Dispatcher
from zaqar_gevent.api.policy import Policy
from zaqar_gevent.conf import ConfigurationError
from zaqar_gevent.rest import build_app
from zaqar_gevent.rest.observation import metrics_app, observe, serve_paths
from zaqar_gevent.server import capabilities
from zaqar_gevent.storage.sqlite import ControlDriver, DataDriver
from zaqar_gevent.storage.stores import stores_of

CLIENT = {'Client-ID': '3381af92-2b9e-11e3-b191-71861300734c', 'X-Project-ID': 'demo'}
NO_LOG = AccessLog('')


def value(name: str, **labels: object) -> float:
    """A value of the metrics as it is exposed now."""
    return value_in(read(metrics.expose('')[1].decode()), name, **labels)


def new_conf() -> cfg.ConfigOpts:
    conf = configuration.load(cfg.ConfigOpts(), [])
    conf.register_opts(HEALTHCHECK_OPTS, group='healthcheck')
    return conf


@pytest.fixture(scope='module')
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The REST API on a store of its own."""
    conf = new_conf()
    configuration.use_embedded_store(conf, tmp_path_factory.mktemp('store'))
    control = ControlDriver(conf, None)
    storage = DataDriver(conf, None, control)
    stores = stores_of(storage, control)
    broker = Broker(conf, stores, capabilities(conf, stores.features), 1.0)
    yield build_app(Dispatcher(broker, Policy(conf)))
    storage.close()
    control.close()


@pytest.fixture
def log_file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / 'access.log'


@pytest.fixture
def access_log(log_file: pathlib.Path) -> Iterator[AccessLog]:
    log = AccessLog(str(log_file))
    yield log
    log.close()


def ask(app: Any, path: str, method: str = 'GET', **more: Any) -> webob.Response:
    """Send a request the way a server would."""
    headers = {**CLIENT, **more.pop('headers', {})}
    request = webob.Request.blank(path, method=method, headers=headers, **more)
    answer = request.get_response(validator(app))
    assert answer.body is not None  # read to its end, as a server does
    return answer


def lines(file: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    ('method', 'path', 'operation', 'status'),
    [
        ('PUT', '/v2/queues/observed', 'queue_create', 201),
        ('GET', '/v2/queues', 'queue_list', 200),
        ('GET', '/v2/queues/observed/claims/none', 'claim_get', 404),
        ('GET', '/v2/queues?limit=x', 'queue_list', 400),
        ('GET', '/nowhere', 'none', 404),
        ('TRACE', '/v2/queues', 'none', 405),
        ('GET', '/v2/ping', 'ping_node', 204),
    ],
)
def test_a_request_counts_under_its_operation_and_status(
    api: Any, method: str, path: str, operation: str, status: int
) -> None:
    labels = {'operation': operation, 'transport': 'rest'}
    counted = value('requests_total', **labels, status=status)
    timed = value('request_duration_seconds_count', **labels)
    assert ask(observe(api, NO_LOG), path, method).status_int == status
    assert value('requests_total', **labels, status=status) == counted + 1
    assert value('request_duration_seconds_count', **labels) == timed + 1


def test_operations_that_share_a_path_are_told_apart(
    api: Any, access_log: AccessLog, log_file: pathlib.Path
) -> None:
    app = observe(api, access_log)
    ask(app, '/v2/queues/observed/messages')
    ask(app, '/v2/queues/observed/messages?ids=1')
    assert [line['operation'] for line in lines(log_file)] == ['message_list', 'message_get_many']


def test_what_an_application_raises_counts_as_500_and_is_raised(
    access_log: AccessLog, log_file: pathlib.Path
) -> None:
    def fail(environ: Any, start_response: Any) -> Any:
        raise RuntimeError('defect')

    labels = {'operation': 'none', 'transport': 'rest', 'status': 500}
    counted = value('requests_total', **labels)
    with pytest.raises(RuntimeError, match='defect'):
        ask(observe(fail, access_log), '/')
    assert value('requests_total', **labels) == counted + 1
    assert lines(log_file)[0]['status'] == 500


def test_the_answer_is_passed_on_as_it_is(access_log: AccessLog) -> None:
    body = [b'one', b'two']
    started: list[Any] = []
    headers = [('Content-Length', '6')]

    def answer(environ: Any, start_response: Any) -> Any:
        start_response('200 Fine', headers)
        return body

    def start(*arguments: Any) -> None:
        started.append(arguments)

    environ = webob.Request.blank('/').environ
    assert observe(answer, access_log)(environ, start) is body
    assert started == [('200 Fine', headers)]
    assert started[0][1] is headers


def test_a_line_says_what_was_asked_by_whom_and_what_came_of_it(
    api: Any, access_log: AccessLog, log_file: pathlib.Path
) -> None:
    sent = json.dumps({'messages': [{'body': 'hello', 'ttl': 300}]}).encode()
    answer = ask(
        observe(api, access_log),
        '/v2/queues/observed/messages?echo=true',
        'POST',
        body=sent,
        headers={'X-User-Id': 'somebody'},
        environ={'REMOTE_ADDR': '192.0.2.7'},
    )
    [line] = lines(log_file)
    assert line.pop('time').endswith('Z')
    assert 0 < line.pop('duration_ms') < 10_000
    assert line == {
        'request_id': answer.headers['X-OpenStack-Request-ID'],
        'transport': 'rest',
        'operation': 'message_post',
        'status': 201,
        'project_id': 'demo',
        'user_id': 'somebody',
        'client_id': CLIENT['Client-ID'],
        'remote': '192.0.2.7',
        'bytes_in': len(sent),
        'bytes_out': len(answer.body),
        'method': 'POST',
        'path': '/v2/queues/observed/messages',
    }


def test_neither_a_body_nor_a_token_nor_a_signature_is_written_down(
    api: Any, access_log: AccessLog, log_file: pathlib.Path
) -> None:
    secret = 'not-for-the-log'
    message = {'messages': [{'body': secret, 'ttl': 300}]}
    headers = {
        **dict.fromkeys(('X-Auth-Token', 'X-Service-Token', 'Authorization', 'Cookie'), secret),
        **dict.fromkeys(('URL-Signature', 'URL-Methods', 'URL-Paths', 'URL-Expires'), secret),
    }
    app = observe(api, access_log)
    path = f'/v2/queues/observed/messages?signature={secret}'
    ask(app, path, 'POST', body=json.dumps(message).encode(), headers=headers)
    ask(app, path, 'POST', body=json.dumps(message).encode())
    ask(app, path + '&echo=true')
    assert len(lines(log_file)) == 3
    assert secret not in log_file.read_text()


@pytest.mark.parametrize(
    ('path', 'logged'),
    [
        ('/v2/queues/%0A%7B%22status%22:200%7D', '/v2/queues/\n{"status":200}'),
        ('/v2/queues/%22%0D%0A', '/v2/queues/"\r\n'),
        ('/v2/queues/%1B%5B2J%00', '/v2/queues/\x1b[2J\x00'),
        ('/v2/queues/%E2%80%A8', '/v2/queues/\u2028'),
        ('/v2/queues/%C2%85', '/v2/queues/\x85'),
        ('/v2/queues/%E6%B6%88', '/v2/queues/\u6d88'),
        ('/v2/queues/%FF', '/v2/queues/\ufffd'),
    ],
)
def test_no_path_makes_a_line(
    api: Any, access_log: AccessLog, log_file: pathlib.Path, path: str, logged: str
) -> None:
    app = observe(api, access_log)
    ask(app, path)
    ask(app, '/')
    assert [line['path'] for line in lines(log_file)] == [logged, '/']


def test_no_project_makes_a_line(api: Any, access_log: AccessLog, log_file: pathlib.Path) -> None:
    forged = 'x", "status": 200}\u0085{"a": "'
    ask(observe(api, access_log), '/v2/queues', headers={'X-Project-ID': forged})
    [line] = lines(log_file)
    assert line['project_id'] == forged


@pytest.mark.parametrize(
    ('environ', 'size'),
    [
        ({'CONTENT_LENGTH': '12'}, 12),
        ({'CONTENT_LENGTH': ''}, 0),
        ({'HTTP_TRANSFER_ENCODING': 'chunked'}, None),
        ({'CONTENT_LENGTH': '-1'}, None),
        ({'CONTENT_LENGTH': '9' * 5000}, None),
        ({'CONTENT_LENGTH': '\u00b2'}, None),
    ],
    ids=str,
)
def test_the_size_of_a_body_is_what_was_announced(
    access_log: AccessLog, log_file: pathlib.Path, environ: dict[str, str], size: int | None
) -> None:
    request = webob.Request.blank('/', environ=environ)
    observe(webob.Response(), access_log)(request.environ, lambda *_: None)
    assert lines(log_file)[0]['bytes_in'] == size


def test_the_answer_to_a_head_has_no_bytes(access_log: AccessLog, log_file: pathlib.Path) -> None:
    app = observe(webob.Response(text='{}'), access_log)
    for method in ('HEAD', 'GET'):
        assert ask(app, '/', method).headers['Content-Length'] == '2'
    assert [line['bytes_out'] for line in lines(log_file)] == [0, 2]


def always() -> bool:
    return True


def beside(app: Any = None, is_well: Callable[[], bool] = always, **values: Any) -> Any:
    """The paths beside an API, for which stands what answers 418."""
    conf = new_conf()
    for name, chosen in values.items():
        group = options.GROUP if name.startswith('metrics') else 'healthcheck'
        conf.set_override(name, chosen, group=group)
    return serve_paths(app or webob.Response(status=418), conf, is_well)


def test_the_metrics_need_neither_a_token_nor_a_client_id() -> None:
    metrics.observe_request('queue_stats', 'rest', 200, 0.1)
    answer = ask(beside(), '/metrics', headers=dict.fromkeys(CLIENT, ''))
    assert answer.status_int == 200
    assert answer.headers['Content-Type'].startswith('text/plain; version=0.0.4')
    assert answer.content_length == len(answer.body)
    wanted = 'zaqar_requests_total{operation="queue_stats",status="200",transport="rest"} 1.0'
    assert wanted in answer.text


def test_the_metrics_are_offered_as_openmetrics_too() -> None:
    accept = {'Accept': 'application/openmetrics-text;version=1.0.0,*/*;q=0.1'}
    answer = ask(beside(), '/metrics', headers=accept)
    assert answer.headers['Content-Type'].startswith('application/openmetrics-text; version=1.0.0')
    assert answer.body.endswith(b'# EOF\n')


def test_the_metrics_have_a_head() -> None:
    answer = ask(beside(), '/metrics', 'HEAD')
    assert answer.status_int == 200
    assert answer.body == b''
    assert int(answer.headers['Content-Length']) > 0


@pytest.mark.parametrize('app', [beside(), metrics_app], ids=['beside', 'apart'])
@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'OPTIONS'])
def test_the_metrics_can_only_be_read(app: Any, method: str) -> None:
    answer = ask(app, '/metrics', method)
    assert answer.status_int == 405
    assert answer.headers['Allow'] == 'GET, HEAD'
    assert answer.json['code'] == 'method_not_allowed'
    assert set(answer.json) == {'code', 'title', 'description'}


@pytest.mark.parametrize('values', [{'metrics': False}, {'metrics_port': 9090}], ids=str)
def test_metrics_that_are_off_or_elsewhere_are_not_at_the_port_of_the_api(
    values: dict[str, Any],
) -> None:
    assert ask(beside(**values), '/metrics').status_int == 418


@pytest.mark.parametrize('path', ['/', '/metrics/', '/metrics2', '/v2/health', '/healthcheck/x'])
def test_everything_else_goes_on_unchanged(path: str) -> None:
    seen: list[Any] = []
    body = [b'']

    def app(environ: Any, start_response: Any) -> Any:
        seen.append((environ, start_response))
        return body

    environ = webob.Request.blank(path).environ
    before = dict(environ)
    assert beside(app)(environ, print) is body
    assert seen == [(environ, print)]
    assert seen[0][0] is environ
    assert environ == before


def test_the_listener_of_its_own_has_nothing_but_metrics() -> None:
    answer = ask(metrics_app, '/metrics')
    assert answer.status_int == 200
    assert b'zaqar_requests_total' in answer.body
    for path in ('/', '/v2/queues', '/healthcheck'):
        refused = ask(metrics_app, path)
        assert refused.status_int == 404
        assert refused.json['code'] == 'not_found'
        assert set(refused.json) == {'code', 'title', 'description'}


@pytest.mark.parametrize(
    ('method', 'status'), [('GET', 200), ('HEAD', 204), ('POST', 200), ('PUT', 200)]
)
def test_the_health_check_answers_whoever_asks(method: str, status: int) -> None:
    request = webob.Request.blank('/healthcheck?x=1', method=method)
    answer = request.get_response(beside())
    assert answer.status_int == status


def test_the_health_check_is_told_in_json_where_it_is_wanted() -> None:
    answer = ask(beside(), '/healthcheck', headers={'Accept': 'application/json'})
    assert answer.json == {'detailed': False, 'reasons': []}


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST'])
def test_the_health_check_tells_when_the_store_cannot_be_used(method: str) -> None:
    answer = ask(beside(is_well=lambda: False), '/healthcheck', method)
    assert answer.status_int == 503
    told = ask(
        beside(is_well=lambda: False), '/healthcheck', headers={'Accept': 'application/json'}
    )
    assert told.json == {'detailed': False, 'reasons': ['The store cannot be used']}


def test_the_health_check_is_what_its_section_says(tmp_path: pathlib.Path) -> None:
    file = tmp_path / 'disabled'
    conf = new_conf()
    conf.set_override('backends', ['disable_by_file'], group='healthcheck')
    app = serve_paths(metrics_app, conf, always)
    conf.set_override('disable_by_file_path', str(file), group='healthcheck')
    assert ask(app, '/healthcheck').status_int == 200
    file.touch()
    assert ask(app, '/healthcheck').status_int == 503


def test_who_is_shut_out_of_the_health_check_comes_to_the_api() -> None:
    app = beside(allowed_source_ranges=['192.0.2.0/24'])
    inside, outside = ({'REMOTE_ADDR': address} for address in ('192.0.2.9', '198.51.100.9'))
    assert ask(app, '/healthcheck', environ=inside).status_int == 200
    assert ask(app, '/healthcheck', environ=outside).status_int == 418


@pytest.mark.parametrize(
    'values',
    [
        {'allowed_source_ranges': ['nowhere']},
        {'backends': ['disable_by_file', 'enable_by_files']},
    ],
    ids=str,
)
def test_a_health_check_that_cannot_work_is_refused_at_start(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r'^\[healthcheck\]'):
        beside(**values)
