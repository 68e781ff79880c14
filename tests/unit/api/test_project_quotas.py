"""Limits of projects: how they are read, and how requests are counted."""

from __future__ import annotations

import pytest
from oslo_config import cfg

from zaqar_gevent import quota_options
from zaqar_gevent.api import errors
from zaqar_gevent.api.project_quotas import ProjectQuotas
from zaqar_gevent.quota_options import Limits, ProjectLimits


def read(**values: object) -> Limits:
    conf = cfg.ConfigOpts()
    conf([])
    conf.register_opts(quota_options.ALL_OPTS, group=quota_options.GROUP)
    for name, value in values.items():
        conf.set_override(name, value, group=quota_options.GROUP)
    return quota_options.read(conf)


def test_nothing_is_limited_by_default() -> None:
    limits = read()
    assert limits.of('any') == ProjectLimits(None, None, None, None)
    assert not any(limits.limit_any(name) for name in ProjectLimits._fields)


def test_a_project_may_have_limits_of_its_own() -> None:
    own = 'a:b: zaqar_messages_per_queue=-1, zaqar_requests_per_second = 7'
    limits = read(zaqar_queues=3, zaqar_messages_per_queue=5, override=[own])
    assert limits.of('other') == ProjectLimits(3, 5, None)
    assert limits.of('a:b') == ProjectLimits(3, None, 7)
    assert limits.limit_any('zaqar_requests_per_second')


@pytest.mark.parametrize(
    'override',
    ['p', ': zaqar_queues=1', 'p: queues=1', 'p: zaqar_queues', 'p: zaqar_queues=-2', 'p:'],
)
def test_a_wrong_override_is_refused_by_name(override: str) -> None:
    with pytest.raises(ValueError, match=r'\[quota\] override = '):
        read(override=[override])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Clock, **limits: int) -> ProjectQuotas:
    def no_store() -> None:
        raise AssertionError('nothing is to be counted by the store')

    return ProjectQuotas(Limits(ProjectLimits(**limits)), no_store, clock)  # type: ignore[arg-type]


def test_as_many_requests_as_in_a_second_may_come_at_once() -> None:
    clock = Clock()
    limited = quotas(clock, zaqar_requests_per_second=4)
    for _ in range(4):
        limited.count_request('p')
    with pytest.raises(errors.QuotaExceeded) as refused:
        limited.count_request('p')
    assert refused.value.retry_after == 1
    # Of another project nothing is taken.
    limited.count_request('q')
    clock.now += 0.5
    limited.count_request('p')
    limited.count_request('p')
    with pytest.raises(errors.QuotaExceeded):
        limited.count_request('p')
    clock.now += 60
    for _ in range(4):
        limited.count_request('p')
    with pytest.raises(errors.QuotaExceeded):
        limited.count_request('p')


def test_projects_that_are_idle_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('zaqar_gevent.api.project_quotas._MOST_BUCKETS', 10)
    clock = Clock()
    limited = quotas(clock, zaqar_requests_per_second=1)
    for number in range(100):
        clock.now += 0.5
        limited.count_request(f'p{number}')
        assert len(limited._buckets) <= 10


def test_what_no_queue_may_have_is_never_counted() -> None:
    limited = quotas(Clock(), zaqar_messages_per_queue=2)
    with pytest.raises(errors.BodyTooLarge), limited.new_messages(3, 'q', 'p'):
        pytest.fail('it was let in')
