"""The samples under etc/ are what the generators write.

Of the configuration, our own groups are compared whole, and upstream's only for being there: their
texts change with the versions that happen to be installed.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from zaqar_gevent import conf, policies
from zaqar_gevent.api import REGISTRY

ETC = pathlib.Path(__file__).parents[2] / 'etc'
CONFIGURATION = (ETC / 'zaqar-gevent.conf.sample').read_text(encoding='utf-8')
POLICIES = (ETC / 'policy.yaml.sample').read_text(encoding='utf-8')
OURS = '#\n# From zaqar_gevent\n#\n'
GROUPS = [group for group, _ in conf.list_opts()]


def generate(module: str, *options: str) -> str:
    """What a generator of oslo prints."""
    code = f'from {module} import generator; import sys; generator.{options[0]}()'
    command = [sys.executable, '-c', code, *options[1:]]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def groups_of(sample: str) -> dict[str, str]:
    """The text of each group of a configuration file."""
    parts = re.split(r'^\[(.+)\]$', sample, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.fixture(scope='module')
def generated() -> dict[str, str]:
    options = ('--namespace', 'zaqar_gevent', '--wrap-width', '79')
    return groups_of(generate('oslo_config', 'main', *options))


@pytest.mark.parametrize('group', GROUPS)
def test_our_options_are_in_the_sample_as_they_are(generated: dict[str, str], group: str) -> None:
    # Where upstream has the group, too, ours come last.
    _, ours, text = groups_of(CONFIGURATION)[group].rpartition(OURS)
    assert ours + text == generated[group], 'run tox -e genconfig'


@pytest.mark.parametrize(
    'group',
    [
        'drivers',
        'transport',
        'storage',
        'cache',
        'cors',
        'healthcheck',
        'oslo_policy',
        'keystone_authtoken',
    ],
)
def test_the_groups_of_others_are_in_the_sample(group: str) -> None:
    assert groups_of(CONFIGURATION)[group]


def test_every_rule_is_in_the_sample_with_its_default() -> None:
    rules = {f'"{rule.name}": "{rule.check_str}"' for rule in policies.list_rules()}
    found = {line[1:] for line in POLICIES.splitlines() if re.match(r'#"', line)}
    assert found == rules, 'run tox -e genpolicy'


def test_every_operation_is_ruled_by_the_sample() -> None:
    for operation in REGISTRY:
        assert operation.policy is None or f'#"{operation.policy}":' in POLICIES


@pytest.mark.parametrize('sample', [CONFIGURATION, POLICIES], ids=['configuration', 'policies'])
def test_a_sample_does_not_tell_where_it_was_made(sample: str) -> None:
    assert not re.search(r'/(home|root|tmp)/', sample)
