"""A real Keystone on SQLite, from an environment of its own: its libraries need not be ours.

KEYSTONE_BIN: the directory of `keystone-manage` and of the Python that has Keystone; without it
these tests are skipped. `tox -e keystone` makes one.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.ports import free_port
from tests.server_process import START_SECONDS, ServerProcess

HERE = pathlib.Path(__file__).parent
SHORT_SECONDS = 6
# Of each part of setting up a Keystone, on a machine that may be busy.
SET_UP_SECONDS = 300
PASSWORD = 'a password'


class Keystone:
    """An identity service, and an administrator's hands in it.

    url, short_url: the same Keystone; what the second issues is valid for `SHORT_SECONDS`.
    """

    def __init__(self, programs: pathlib.Path, state: pathlib.Path) -> None:
        self._programs = programs
        self._state = state
        self.url, self.short_url = (f'http://127.0.0.1:{free_port()}/v3' for _ in range(2))

    @contextmanager
    def running(self) -> Iterator[None]:
        self._set_up()
        with self._serving(self.url, 3600), self._serving(self.short_url, SHORT_SECONDS):
            self._token = self.token('admin', 'admin')
            self._roles = {role['name']: role['id'] for role in self._get('roles')}
            yield

    def _set_up(self) -> None:
        for name in ('fernet', 'credential'):
            (self._state / name).mkdir(mode=0o700)
        self._manage('db_sync')
        for kind in ('fernet', 'credential'):
            self._manage(
                *(f'{kind}_setup', '--keystone-user', str(os.getuid())),
                *('--keystone-group', str(os.getgid())),
            )
        urls = [f'--bootstrap-{kind}-url={self.url}' for kind in ('admin', 'internal', 'public')]
        region = '--bootstrap-region-id=RegionOne'
        self._manage('bootstrap', '--bootstrap-password', PASSWORD, region, *urls)

    def _environ(self, seconds: int) -> dict[str, str]:
        file = self._state / f'keystone-{seconds}.conf'
        file.write_text(
            f'[DEFAULT]\nlog_file = {self._state}/keystone.log\n'
            f'[database]\nconnection = sqlite:///{self._state}/keystone.sqlite\n'
            f'[fernet_tokens]\nkey_repository = {self._state}/fernet\n'
            f'[credential]\nkey_repository = {self._state}/credential\n'
            f'[token]\nexpiration = {seconds}\n[cache]\nenabled = False\n'
            # As cheap as may be: where hashing takes seconds, short tokens have expired before use.
            '[identity]\npassword_hash_rounds = 4\n'
        )
        return {**os.environ, 'OS_KEYSTONE_CONFIG_FILES': str(file), 'PYTHONWARNINGS': 'ignore'}

    def _manage(self, *arguments: str) -> None:
        environ = self._environ(3600)
        command = [str(self._programs / 'keystone-manage')]
        files = ['--config-file', environ['OS_KEYSTONE_CONFIG_FILES']]
        subprocess.run(
            [*command, *files, *arguments], check=True, env=environ, timeout=SET_UP_SECONDS
        )

    @contextmanager
    def _serving(self, url: str, seconds: int) -> Iterator[None]:
        port = url.split(':')[2].split('/', maxsplit=1)[0]
        command = [str(self._programs / 'python'), str(HERE / 'serve.py'), port]
        process = subprocess.Popen(
            command, env=self._environ(seconds), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == 'ready\n'
            yield
        finally:
            process.terminate()
            process.wait(START_SECONDS)
            process.stdout.close()

    def token(self, user: str, project: str, *, short: bool = False) -> str:
        """A token of a user for a project."""
        domain = {'id': 'default'}
        who = {'user': {'name': user, 'domain': domain, 'password': PASSWORD}}
        body = {
            'auth': {
                'identity': {'methods': ['password'], 'password': who},
                'scope': {'project': {'name': project, 'domain': domain}},
            }
        }
        url = self.short_url if short else self.url
        answer = requests.post(f'{url}/auth/tokens', json=body, timeout=60)
        answer.raise_for_status()
        return answer.headers['X-Subject-Token']

    def new_project(self) -> tuple[str, str]:
        """Name and id of a new project."""
        name = uuid.uuid4().hex
        return name, self._create('project', name=name, domain_id='default')

    def new_user(self, project_id: str, *roles: str) -> tuple[str, str]:
        """Name and id of a new user with these roles in a project."""
        name = uuid.uuid4().hex
        user_id = self._create('user', name=name, domain_id='default', password=PASSWORD)
        for role in roles:
            self._assign('PUT', project_id, user_id, role)
        return name, user_id

    def revoke(self, project_id: str, user_id: str, role: str) -> None:
        """Take a role from a user."""
        self._assign('DELETE', project_id, user_id, role)

    def _assign(self, method: str, project_id: str, user_id: str, role: str) -> None:
        path = f'projects/{project_id}/users/{user_id}/roles/{self._roles[role]}'
        self._request(method, path)

    def _create(self, kind: str, **members: Any) -> str:
        created: str = self._request('POST', f'{kind}s', {kind: members}).json()[kind]['id']
        return created

    def _get(self, kind: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._request('GET', kind).json()[kind]
        return listed

    def _request(self, method: str, path: str, body: Any = None) -> requests.Response:
        headers = {'X-Auth-Token': self._token}
        answer = requests.request(
            method, f'{self.url}/{path}', json=body, headers=headers, timeout=60
        )
        answer.raise_for_status()
        return answer


@pytest.fixture(scope='session')
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    programs = os.environ.get('KEYSTONE_BIN')
    if programs is None:
        pytest.skip('KEYSTONE_BIN names no Keystone; `tox -e keystone` makes one')
    service = Keystone(pathlib.Path(programs), tmp_path_factory.mktemp('keystone'))
    with service.running():
        yield service


@pytest.fixture(scope='session')
def guarded(
    keystone: Keystone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that wants Keystone's tokens."""
    state = tmp_path_factory.mktemp('guarded')
    policy = state / 'policy.yaml'
    policy.write_text('"queues:delete": "role:manager"\n')
    config = '\n'.join(
        (
            '[DEFAULT]',
            'auth_strategy = keystone',
            '[oslo_policy]',
            f'policy_file = {policy}',
            '[keystone_authtoken]',
            f'auth_url = {keystone.url}',
            f'www_authenticate_uri = {keystone.url}',
            'auth_type = password',
            'username = admin',
            f'password = {PASSWORD}',
            'user_domain_id = default',
            'project_name = admin',
            'project_domain_id = default',
            'token_cache_time = -1',
        )
    )
    with ServerProcess(state, config=config) as process:
        yield process
