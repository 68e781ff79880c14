"""Where JavaScript runs: Node, and pages in Chromium. Both offer the functions of a module."""

from __future__ import annotations

import base64
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
import websockets.sync.client

from tests.server_process import start_process

HERE = pathlib.Path(__file__).parent
SOCKETS = HERE / 'sockets.mjs'
SECONDS = 90
NODE_MAJOR = 20
# From this release on, WebSocket needs no flag.
NODE_PLAIN_MAJOR = 22
CHROMIUM_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
CHROMIUM_FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'),
    *('--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-sync'),
    *('--disable-component-update', '--disable-extensions', '--disable-breakpad'),
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    '--remote-debugging-port=0',
)


class Host(Protocol):
    """A place where JavaScript runs."""

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the module and return what it returns.

        Raises AssertionError for what it throws.
        """


def _find(names: Sequence[str], what: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.fail(f'{what} is needed: none of {", ".join(names)} is in PATH. Install it.')


class Node:
    """A Node process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, function: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([function, arguments]) + '\n')
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, 'Node has ended'
        answer = json.loads(line)
        assert 'error' not in answer, answer['error']
        return answer.get('value')


@contextmanager
def running_node(module: pathlib.Path = SOCKETS) -> Iterator[Node]:
    what = f'Node.js {NODE_MAJOR} or later (package nodejs, or https://nodejs.org)'
    path = _find(['node', 'nodejs'], what)
    version = subprocess.run([path, '--version'], capture_output=True, text=True, check=True)
    major = int(version.stdout.removeprefix('v').split('.')[0])
    if major < NODE_MAJOR:
        pytest.fail(f'{what} is needed, not {version.stdout.strip()}. Install it.')
    flags = ['--experimental-websocket'] if major < NODE_PLAIN_MAJOR else []
    command = [path, *flags, '--no-warnings', str(HERE / 'node.mjs'), module.as_uri()]
    pipes: Any = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, **pipes) as process:
        yield Node(process)


class Chromium:
    """A browser without a window, over its DevTools protocol."""

    def __init__(self, devtools: websockets.sync.client.ClientConnection) -> None:
        self._devtools = devtools
        self._ids = itertools.count(1)

    @contextmanager
    def page(self, url: str) -> Iterator[Page]:
        """A new page, which has loaded `url`."""
        target = self.command('Target.createTarget', {'url': 'about:blank'})
        attached = self.command('Target.attachToTarget', {**target, 'flatten': True})
        page = Page(self, attached['sessionId'])
        page.load(url)
        yield page
        self.command('Target.closeTarget', target)

    def command(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        """Have something done; returns its result."""
        request = {'id': next(self._ids), 'method': method, 'params': parameters}
        if session is not None:
            request['sessionId'] = session
        self._devtools.send(json.dumps(request))
        answer = self.receive('id', request['id'])
        assert 'error' not in answer, answer['error']
        return answer['result']

    def receive(self, member: str, value: Any) -> dict[str, Any]:
        """The next message that has `value` as `member`."""
        while True:
            message: dict[str, Any] = json.loads(self._devtools.recv(SECONDS))
            if message.get(member) == value:
                return message


class Page:
    """A page in Chromium."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def load(self, url: str) -> None:
        self._command('Page.enable')
        loading = self._command('Page.navigate', url=url)
        assert 'errorText' not in loading, loading['errorText']
        self._browser.receive('method', 'Page.loadEventFired')
        assert self.evaluate('location.href') == url
        script = base64.b64encode(SOCKETS.read_bytes()).decode()
        self.use(f'data:text/javascript;base64,{script}')

    def use(self, module: str) -> None:
        """Offer the functions of the module at this URL."""
        url = json.dumps(module)
        self.evaluate(f'import({url}).then((module) => {{ globalThis.functions = module; }})')

    def call(self, function: str, *arguments: Any) -> Any:
        return self.evaluate(f'functions.{function}(...{json.dumps(arguments)})')

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, which is awaited."""
        how = {'awaitPromise': True, 'returnByValue': True}
        evaluated = self._command('Runtime.evaluate', expression=expression, **how)
        assert 'exceptionDetails' not in evaluated, evaluated['exceptionDetails']
        return evaluated['result'].get('value')

    def _command(self, method: str, **parameters: Any) -> Any:
        return self._browser.command(method, parameters, self._session)


@contextmanager
def running_chromium(profile: pathlib.Path) -> Iterator[Chromium]:
    """profile: an empty directory for what the browser keeps."""
    path = _find(CHROMIUM_NAMES, 'Chromium (package chromium) or Google Chrome')
    command = [path, *CHROMIUM_FLAGS, f'--user-data-dir={profile}', 'about:blank']
    process = start_process(command, {**os.environ, 'HOME': str(profile)})
    try:
        url = _devtools_url(process)
        with websockets.sync.client.connect(url, max_size=None, compression=None) as devtools:
            yield Chromium(devtools)
    finally:
        process.terminate()
        process.wait(SECONDS)


def _devtools_url(process: subprocess.Popen[str]) -> str:
    """Where the browser is driven from, by what it prints, which is read on in the background."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        match = re.search(r'DevTools listening on (ws://\S+)', line)
        if match:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return match[1]
    raise AssertionError('Chromium did not start:\n' + ''.join(printed))
