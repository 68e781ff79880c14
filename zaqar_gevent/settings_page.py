"""The page about the settings of queues, in Markdown, from their declarations.

::

    python -m zaqar_gevent.settings_page docs/settings.md
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

from zaqar_gevent.api.settings import SETTINGS, Setting
from zaqar_gevent.operation_tables import camel

_INTRODUCTION = """\
# Settings of queues

A queue has metadata: keys and values of your own, and settings, whose keys start with `_`. They are
given when a queue is created, or changed later. This page is written by `tox -e genreference` from
the declarations that the server, the clients and the terminal use.

```python
jobs = zaqar.queue('jobs')
jobs.configure(max_claims=5, dead_letter_queue='failed', retry_delay={'initial': 2})
```

```js
const jobs = zaqar.queue('jobs');
await jobs.configure({ maxClaims: 5, deadLetterQueue: 'failed', retryDelay: { initial: 2 } });
```

```console
$ zaqar-gevent queue create jobs --max-claims 5 --dead-letter-queue failed --retry-delay 2
$ zaqar-gevent queue set jobs --max-claims 6
```

```bash
curl -s -X PATCH http://127.0.0.1:8888/v2/queues/jobs \\
  -H 'Client-ID: 3381af92-2b9e-11e3-b191-71861300734c' -H 'X-Project-ID: demo' \\
  -H 'Content-Type: application/openstack-messaging-v2.0-json-patch' \\
  -d '[{"op": "add", "path": "/metadata/_max_claim_count", "value": 5}]'
```

- `configure` works whether the queue exists or not, and leaves what is not named as it is. None
  (`null`) takes a setting back to its default. A name that no setting has is refused.
- `create(metadata)` sets metadata of a new queue only; one that exists is left as it is. If it has
  other values of the given metadata, the answer is 409 (`Conflict`) for clients that ask for
  [version 2.1](messages.md#who-sees-what), as both clients and the terminal do. Upstream's clients
  are answered with 204 as ever.
- A value of a wrong type, or out of range, is answered with 400, which says where it is.
- A key that starts with `_` and is no setting is stored and means nothing, as in upstream. It is
  most likely misspelt, so `configure` and the terminal refuse it.
- The server's configuration may have other limits and defaults, in `[transport]`.

"""


def write_page() -> str:
    """The whole page."""
    return _INTRODUCTION + '\n'.join([*_table(), ''])


def _table() -> Iterator[str]:
    yield '| name | key in the metadata | effect | unit | allowed | default | topics | stores |'
    yield '|---|---|---|---|---|---|---|---|'
    for one in SETTINGS:
        cells = (
            _names(one),
            f'`{one.key}`' + ('' if one.is_upstreams else ' (not in upstream)'),
            one.effect,
            _unit(one),
            one.allowed or _KINDS[one.form],
            one.default + (f' (`{one.option}`)' if one.option else ''),
            'yes' if one.for_topics else 'no',
            _stores(one),
        )
        yield f'| {" | ".join(cells)} |'


_KINDS = {
    'number': '1 or more',
    'whole': '0 or more',
    'text': 'a text',
    'switch': 'true or false',
    'retry_delay': 'an object',
    'object': 'an object',
}


def _names(setting: Setting) -> str:
    """The names in Python, in JavaScript if it is another one, and in the terminal."""
    names = dict.fromkeys((setting.name, camel(setting.name)))
    option = f'--{setting.name.replace("_", "-")}'
    return ', '.join(f'`{name}`' for name in (*names, option))


def _unit(setting: Setting) -> str:
    return {'SECONDS': 'seconds', 'BYTES': 'bytes', 'N': 'claims'}.get(setting.placeholder, '')


def _stores(setting: Setting) -> str:
    if setting.feature is None:
        return 'all'
    return f'those that [{setting.feature.value}](messages.md#what-each-store-can-do)'


def main() -> None:
    """Write the page to the file that the command line names."""
    pathlib.Path(sys.argv[1]).write_text(write_page(), encoding='utf-8')


if __name__ == '__main__':
    main()
