"""Limits of projects: how they are read, and how requests are counted."""

from __future__ import annotations

from typing import NoReturn

import pytest
from oslo_config import cfg

from zaqar_gevent import quota_options
from zaqar_gevent.api import errors
from zaqar_gevent.api.project_quotas import ProjectQuotas
from zaqar_gevent.quota_options import Limits, ProjectLimits
from zaqar_gevent.storage.interface import Usage


def read(**values: object) -> Limits:
    conf = cfg.ConfigOpts()
    conf([])
    conf.register_opts(quota_options.ALL_OPTS, group=quota_options.GROUP)
    for name, value in values.items():
        conf.set_override(name, value, group=quota_options.GROUP)
    return quota_options.read(conf)


def test_nothing_is_limited_by_default() -> None:
    limits = read()
    assert set(limits.of('any')) == {None}
    assert not any(limits.limit_any(name) for name in ProjectLimits._fields)


def test_a_project_may_have_limits_of_its_own() -> None:
    own = 'a:b: zaqar_messages_per_queue=-1, zaqar_requests_per_second = 7'
    limits = read(zaqar_queues=3, zaqar_messages_per_queue=5, override=[own])
    assert limits.of('other') == ProjectLimits(zaqar_queues=3, zaqar_messages_per_queue=5)
    assert limits.of('a:b') == ProjectLimits(zaqar_queues=3, zaqar_requests_per_second=7)
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


def unused() -> NoReturn:
    raise AssertionError('nothing is to be counted by the store')


def quotas(clock: Clock, **limits: int) -> ProjectQuotas:
    return ProjectQuotas(Limits(ProjectLimits(**limits)), unused, clock=clock)


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
    with pytest.raises(errors.BodyTooLarge), limited.new_post(3, 0, 'q', 'p'):
        pytest.fail('it was let in')


def test_more_bytes_than_the_project_may_have_are_never_counted() -> None:
    limited = quotas(Clock(), zaqar_bytes=2)
    with pytest.raises(errors.BodyTooLarge), limited.new_post(1, 3, 'q', 'p'):
        pytest.fail('it was let in')


class Counters:
    """A store in which a project has some bytes and subscriptions."""

    def __init__(self, usage: Usage) -> None:
        self.usage = usage

    def begin(self, has_bytes: object) -> None:
        """Nothing: they do not change."""

    def get(self, project: str | None = None) -> Usage:
        return self.usage


def counted(usage: Usage, **limits: int) -> ProjectQuotas:
    return ProjectQuotas(Limits(ProjectLimits(**limits)), unused, Counters(usage))


def test_what_is_being_posted_counts() -> None:
    limited = counted(Usage(0, 80), zaqar_bytes=100)
    with limited.new_post(1, 15, 'q', 'p'):
        with pytest.raises(errors.QuotaExceeded), limited.new_post(1, 10, 'r', 'p'):
            pytest.fail('it was let in')
        with limited.new_post(1, 10, 'r', 'other'):
            pass
    with limited.new_post(1, 20, 'q', 'p'):
        pass


def test_what_is_being_subscribed_counts() -> None:
    limited = counted(Usage(1, 0), zaqar_subscriptions=2)
    with limited.new_subscription('p', lambda: False):
        with pytest.raises(errors.QuotaExceeded), limited.new_subscription('p', lambda: False):
            pytest.fail('it was let in')
        with limited.new_subscription('p', lambda: True):
            pass
    with limited.new_subscription('p', lambda: False):
        pass
