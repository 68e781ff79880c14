"""The npm package: `npm pack`, and a project that installs, bundles, compiles and runs it."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.files import ROOT, page_server
from tests.browser.hosts import HERE, running_chromium
from tests.server_process import ServerProcess

PACKAGE = ROOT / 'zaqar_gevent' / 'client' / 'js'
PROGRAM = HERE / 'package.mjs'
TYPES = PACKAGE / 'test' / 'types.ts'
SECONDS = 60
COMPILER = {'strict': True, 'noEmit': True, 'skipLibCheck': False, 'target': 'es2022'}
# Without a flag, Node before 22 has no WebSocket.
RUN = """
import { run } from './package.mjs';
if (process.argv[4] === 'hide') delete globalThis.WebSocket;
console.log(JSON.stringify(await run(process.argv[2], JSON.parse(process.argv[3]))));
"""
VITE = """
export default {
  build: { lib: { entry: 'package.mjs', formats: ['es'], fileName: 'vite' }, minify: true },
};
"""


class Project:
    """A project of somebody else's, with the package in its node_modules.

    tools: a directory that has the programs of `tox -e browser` in its node_modules.
    """

    def __init__(self, path: pathlib.Path, tools: pathlib.Path) -> None:
        self.path = path
        self._tools = tools / 'node_modules'

    def command(self, *command: str) -> str:
        """What a command prints that goes well."""
        finished = subprocess.run(
            command, cwd=self.path, capture_output=True, text=True, timeout=SECONDS
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout + finished.stderr

    def tool(self, name: str, *arguments: str) -> str:
        return self.command(str(self._tools / '.bin' / name), *arguments)

    def run(self, url: str, options: dict[str, Any]) -> dict[str, Any]:
        """Run the program in Node, without a WebSocket of Node's own."""
        result: dict[str, Any] = json.loads(
            self.command('node', 'run.mjs', url, json.dumps(options), 'hide')
        )
        return result

    def provide(self, name: str) -> None:
        """Install another package."""
        target = self.path / 'node_modules' / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(self._tools / name, target)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.path / 'node_modules' / name)


@pytest.fixture(scope='module')
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    tools = os.environ.get('NODE_DEPENDENCIES')
    assert tools, 'esbuild, vite and TypeScript are needed: run `tox -e browser`'
    path = tmp_path_factory.mktemp('project')
    (path / 'package.json').write_text('{"name": "a-project", "type": "module"}')
    (path / 'run.mjs').write_text(RUN)
    (path / 'vite.config.mjs').write_text(VITE)
    shutil.copy(PROGRAM, path)
    project = Project(path, pathlib.Path(tools))
    project.command('npm', 'pack', '--silent', str(PACKAGE))
    [tarball] = path.glob('*.tgz')
    project.command('npm', 'install', '--offline', '--no-audit', '--no-fund', f'./{tarball.name}')
    return project


@pytest.fixture(scope='module')
def origin() -> Iterator[str]:
    with page_server() as origin:
        yield origin


@pytest.fixture(scope='module')
def server(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    path = tmp_path_factory.mktemp('server')
    with ServerProcess(path, '--allowed-origin', origin) as process:
        yield process


def test_the_one_file_is_built_from_the_modules_as_they_are(
    project: Project, tmp_path: pathlib.Path
) -> None:
    built = tmp_path / 'zaqar.js'
    config = str(PACKAGE / 'rollup.config.mjs')
    source = str(PACKAGE / 'src' / 'index.js')
    project.tool('rollup', '--config', config, '--input', source, '--file', str(built))
    assert built.read_text() == (PACKAGE / 'zaqar.js').read_text(), 'run tox -e genclient'


def test_the_package_has_what_users_need_and_nothing_else(project: Project) -> None:
    files = {path.name for path in (project.path / 'node_modules' / 'zaqar-gevent').rglob('*')}
    assert files == {'zaqar.js', 'zaqar.d.ts', 'package.json', 'README.md', 'LICENSE'}
    assert (PACKAGE / 'LICENSE').read_bytes() == (ROOT / 'LICENSE').read_bytes()


def test_node_without_a_websocket_uses_the_package_ws_or_says_what_to_do(
    project: Project, server: ServerProcess
) -> None:
    missing = project.run(server.url, {})
    assert missing['name'] == 'Unsupported'
    assert 'npm install ws' in missing['message']
    assert "transport: 'rest'" in missing['message']
    assert project.run(server.url, {'transport': 'rest'}) == {'state': 'polling', 'bodies': [1, 2]}
    project.provide('ws')
    assert project.run(server.url, {}) == {'state': 'websocket', 'bodies': [1, 2]}
    project.remove('ws')


def test_it_is_bundled_and_the_bundles_work_in_a_page(
    project: Project, server: ServerProcess, origin: str, tmp_path: pathlib.Path
) -> None:
    bundle = ('package.mjs', '--bundle', '--format=esm')
    for minified in ('', '--minify'):
        name = f'esbuild{minified}.js'
        said = project.tool('esbuild', *bundle, *filter(None, [minified]), f'--outfile={name}')
        assert 'warning' not in said.lower()
    said = project.tool('vite', 'build')
    assert 'warning' not in said.lower()
    [by_vite] = (project.path / 'dist').glob('vite*')
    with running_chromium(tmp_path) as browser, browser.page(f'{origin}/') as page:
        for file in (*project.path.glob('esbuild*.js'), by_vite):
            script = base64.b64encode(file.read_bytes()).decode()
            page.use(f'data:text/javascript;base64,{script}')
            assert page.call('run', server.url, {}) == {'state': 'websocket', 'bodies': [1, 2]}


@pytest.mark.parametrize('resolution', ['nodenext', 'bundler'])
@pytest.mark.parametrize('place', ['page', 'node'])
def test_it_compiles_with_every_declaration_checked(
    project: Project, place: str, resolution: str
) -> None:
    """With the types of a page, and with those of Node alone."""
    libraries = ['es2022', 'esnext.disposable']
    if place == 'page':
        libraries += ['dom', 'dom.asynciterable']
    module = 'nodenext' if resolution == 'nodenext' else 'esnext'
    options = {'module': module, 'moduleResolution': resolution, 'lib': libraries, 'types': []}
    if place == 'node':
        for needed in ('@types/node', 'undici-types'):
            if not (project.path / 'node_modules' / needed).exists():
                project.provide(needed)
        options['types'] = ['node']
    program = TYPES.read_text().replace("'../zaqar.js'", "'zaqar-gevent'")
    if place == 'node':
        program = program.replace('  WebSocket,\n', '')
    (project.path / 'types.ts').write_text(program)
    config = {'compilerOptions': {**COMPILER, **options}, 'files': ['types.ts']}
    (project.path / 'tsconfig.json').write_text(json.dumps(config))
    project.tool('tsc', '--project', '.')
