"""The console in Chromium, driven as a person would: by what is written on it, and by keys."""

from __future__ import annotations

import base64
import json
import pathlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.browser.hosts import Chromium

WAIT_SECONDS = 60
KEYS = {
    'Tab': 9,
    'Enter': 13,
    'Escape': 27,
    ' ': 32,
    'End': 35,
    'Home': 36,
    'ArrowUp': 38,
    'ArrowDown': 40,
}
SHIFT, CONTROL = 8, 2
# What is written on a thing that can be used, as a screen reader would name it.
_FINDERS = """
const visible = (node) => node.checkVisibility({ visibilityProperty: true });
const nameOf = (node) => (node.getAttribute('aria-label') ?? node.textContent).trim();
const scope = () => document.querySelector('dialog[open]') ?? document;
globalThis.findControl = (name) => [...scope().querySelectorAll('button, a, summary')]
  .filter(visible).find((node) => nameOf(node) === name);
globalThis.findField = (label) => [...scope().querySelectorAll('input, textarea, select')]
  .filter(visible).find((node) => node.labels[0]?.textContent.trim() === label
    || node.getAttribute('aria-label') === label);
"""


class WatchedChromium(Chromium):
    """A browser whose pages' complaints are kept, by session."""

    def __init__(self, browser: Chromium) -> None:
        super().__init__(browser._devtools)
        self._ids = browser._ids
        self.complaints: dict[str, list[str]] = {}

    def receive(self, member: str, value: Any) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self._devtools.recv(120))
            self._keep(message)
            if message.get(member) == value:
                return message

    def _keep(self, message: dict[str, Any]) -> None:
        complaint = _complaint(message.get('method', ''), message.get('params', {}))
        if complaint is not None:
            self.complaints.setdefault(message['sessionId'], []).append(complaint)

    @contextmanager
    def console(
        self, url: str, project: str = 'demo', width: int = 1280, height: int = 800
    ) -> Iterator[ConsolePage]:
        """The console of a server at `url`, in a browser that knows no more than a project."""
        context = self.command('Target.createBrowserContext', {})
        target = self.command('Target.createTarget', {'url': 'about:blank', **context})
        attached = self.command('Target.attachToTarget', {**target, 'flatten': True})
        page = ConsolePage(self, attached['sessionId'], url, project)
        page.resize(width, height)
        yield page
        self.command('Target.disposeBrowserContext', context)


def _complaint(method: str, event: dict[str, Any]) -> str | None:
    """What a page complains of; not that a request was refused, which it may well be."""
    if method == 'Runtime.exceptionThrown':
        return json.dumps(event['exceptionDetails'])
    if method == 'Runtime.consoleAPICalled' and event['type'] in ('error', 'warning', 'assert'):
        told = json.dumps(event['args'])
        # Nor that the server is away.
        return None if 'zaqar: There is no connection' in told else told
    if method == 'Log.entryAdded':
        entry = event['entry']
        if entry['level'] in ('error', 'warning') and entry['source'] not in (
            'network',
            'rendering',
        ):
            return json.dumps(entry)
    return None


class ConsolePage:
    """A page of the console."""

    def __init__(self, browser: WatchedChromium, session: str, url: str, project: str) -> None:
        self._browser = browser
        self._session = session
        self.url = url
        self.project = project
        for domain in ('Page', 'Runtime', 'Log'):
            self.command(f'{domain}.enable')
        known = json.dumps(json.dumps({'project': project}))
        remember = f"if (origin !== 'null') localStorage['zaqar-console'] ??= {known};"
        self.command('Page.addScriptToEvaluateOnNewDocument', source=_FINDERS + remember)

    def command(self, method: str, **parameters: Any) -> Any:
        return self._browser.command(method, parameters, self._session)

    @property
    def complaints(self) -> list[str]:
        """What the browser has complained of: errors, warnings, breaches of the page's policy."""
        self.evaluate('0')
        return self._browser.complaints.get(self._session, [])

    def open(self, place: str = '') -> None:
        """Load the console at a place such as `#/queues/orders`."""
        # From elsewhere: to another place of the same page would be no load.
        for url in ('about:blank', f'{self.url}/console/{place}'):
            loading = self.command('Page.navigate', url=url)
            assert 'errorText' not in loading, loading['errorText']
            self._browser.receive('method', 'Page.loadEventFired')
        self.command('Page.bringToFront')

    def go(self, place: str) -> None:
        """Follow a link to a place."""
        self.evaluate(f'void (location.hash = {json.dumps(place)})')

    def open_tail(self, queue_name: str) -> None:
        """Load a queue's page, and wait until its tail has begun."""
        self.open(f'#/queues/{queue_name}')
        self.sees('Waiting for messages.')
        self.wait("document.querySelector('.live')?.dataset.state === 'live'")

    def resize(self, width: int, height: int, *, phone: bool = False, scale: float = 1) -> None:
        size = {'width': width, 'height': height, 'deviceScaleFactor': scale, 'mobile': phone}
        self.command('Emulation.setDeviceMetricsOverride', **size)

    def prefer(self, **features: str) -> None:
        """What the reader prefers: `color_scheme='dark'`, `reduced_motion='reduce'`."""
        wanted = [
            {'name': f'prefers-{name.replace("_", "-")}', 'value': value}
            for name, value in features.items()
        ]
        self.command('Emulation.setEmulatedMedia', features=wanted)

    def evaluate(self, expression: str) -> Any:
        how = {'awaitPromise': True, 'returnByValue': True, 'userGesture': True}
        evaluated = self.command('Runtime.evaluate', expression=expression, **how)
        assert 'exceptionDetails' not in evaluated, evaluated['exceptionDetails']
        return evaluated['result'].get('value')

    def wait(self, expression: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(f'Boolean({expression})'):
            if time.monotonic() > deadline:
                text = self.evaluate('document.body.innerText')
                raise AssertionError(f'{expression} never came true; the page says:\n{text}')
            time.sleep(0.05)

    def text(self, selector: str = 'body') -> str:
        """What can be read in the first element of a selector."""
        read: str = self.evaluate(f'document.querySelector({json.dumps(selector)}).innerText')
        return read

    def sees(self, text: str, selector: str = 'body', seconds: float = WAIT_SECONDS) -> None:
        """Wait until a text can be read."""
        place = f'document.querySelector({json.dumps(selector)})'
        self.wait(f'{place}?.innerText.includes({json.dumps(text)})', seconds)

    def sees_no_more(self, text: str, selector: str = 'body') -> None:
        place = f'document.querySelector({json.dumps(selector)})'
        self.wait(f'!{place}?.innerText.includes({json.dumps(text)})')

    def press(self, name: str) -> None:
        """Press the button, or follow the link, of this name, with the mouse."""
        self.wait(f'findControl({json.dumps(name)})')
        x, y = self.evaluate(
            f"""(() => {{
              const control = findControl({json.dumps(name)});
              control.scrollIntoView({{ block: 'center' }});
              const box = control.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ('mousePressed', 'mouseReleased'):
            where = {'x': x, 'y': y, 'button': 'left', 'clickCount': 1}
            self.command('Input.dispatchMouseEvent', type=kind, **where)

    def fill(self, label: str, text: str) -> None:
        """Type into the field of this label, in place of what is there."""
        self.wait(f'findField({json.dumps(label)})')
        self.evaluate(f'findField({json.dumps(label)}).focus()')
        self.evaluate('document.activeElement.select()')
        self.write(text)

    def choose(self, label: str, value: str) -> None:
        """Choose a value of the select of this label."""
        self.wait(f'findField({json.dumps(label)})')
        field = f'findField({json.dumps(label)})'
        self.evaluate(
            f'{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event("change"))'
        )

    def write(self, text: str) -> None:
        """Type where the focus is; nothing deletes what is selected there."""
        if text:
            self.command('Input.insertText', text=text)
        else:
            self.evaluate('document.execCommand("delete")')

    def key(self, name: str, times: int = 1, *, modifiers: int = 0) -> None:
        """Press a key."""
        text = {'Enter': '\r', ' ': ' '}.get(name, '') if not modifiers & CONTROL else ''
        key = {'key': name, 'code': name, 'windowsVirtualKeyCode': KEYS[name]}
        for _ in range(times):
            down = {**key, 'text': text, 'modifiers': modifiers}
            kind = 'keyDown' if text else 'rawKeyDown'
            self.command('Input.dispatchKeyEvent', type=kind, **down)
            self.command('Input.dispatchKeyEvent', type='keyUp', **key, modifiers=modifiers)

    def focused(self) -> str:
        """The name of what has the focus."""
        name: str = self.evaluate(
            """(() => {
              const node = document.activeElement;
              const label = node.labels?.[0]?.textContent;
              return (node.getAttribute('aria-label') ?? label ?? node.textContent).trim();
            })()"""
        )
        return name

    def tab_to(self, name: str, most: int = 60, *, modifiers: int = 0) -> None:
        """Press Tab until the focus is at what has this name."""
        for _ in range(most):
            if self.focused() == name:
                return
            self.key('Tab', modifiers=modifiers)
        raise AssertionError(f'Tab does not lead to {name!r}')

    def picture(self, file: pathlib.Path) -> None:
        """Write what can be seen to a PNG file."""
        shot = self.command('Page.captureScreenshot', format='png')
        file.write_bytes(base64.b64decode(shot['data']))
