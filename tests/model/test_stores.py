"""Stores against the model, by random sequences of what several clients do.

The usual run has the same few sequences each time; the slow one has others each time, and many.
"""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from oslo_utils import timeutils
from zaqar.storage import pipeline

from tests.model.machine import Clock, machine_of
from tests.postgres_process import PostgresProcess
from tests.storage.conftest import Store, load, load_postgresql, open_drivers
from zaqar_gevent.storage import drivers

STORES = ('sqlite', 'unshared', 'postgresql')
AHEAD_SECONDS = 3600

_SETTINGS = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    stateful_step_count=50,
)
USUAL = settings(
    _SETTINGS, derandomize=True, max_examples=12, phases=(Phase.generate, Phase.shrink)
)
LONG = settings(_SETTINGS, max_examples=600, phases=(Phase.generate, Phase.shrink))
LONG_STEPS = 10_000


@pytest.fixture(scope='module', params=STORES)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    gevent.get_hub()
    name, directory, redis = request.param, tmp_path_factory.mktemp(request.param), None
    if name == 'postgresql':
        postgres: PostgresProcess = request.getfixturevalue('postgres')
        conf = load_postgresql(postgres.uri, directory)
    else:
        redis = request.getfixturevalue('redis') if name == 'unshared' else None
        conf = load(name, redis, directory)
    driver, control = open_drivers(name, conf)
    data = pipeline.DataDriver(conf, driver, control)
    drivers.protect(data)
    drivers.protect_control(control)
    yield Store(name, data, control, redis)
    data.close()
    control.close()


@pytest.fixture(scope='module')
def clock() -> Clock:
    return Clock(int(timeutils.utcnow_ts()) + AHEAD_SECONDS)


def run(store: Store, clock: Clock, how: settings) -> int:
    """Run sequences; how many steps they had."""
    machine = machine_of(store, clock)
    with clock.installed():
        run_state_machine_as_test(machine, settings=how)
    return machine.steps


# To find the shortest sequence that fails takes minutes.
@pytest.mark.timeout(900)
def test_clients_see_what_the_model_says(store: Store, clock: Clock) -> None:
    assert run(store, clock, USUAL) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_clients_see_what_the_model_says_for_long(store: Store, clock: Clock) -> None:
    steps = run(store, clock, LONG)
    print(f'{store.name}: {steps} steps')
    assert steps > LONG_STEPS
