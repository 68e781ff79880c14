"""The web console: static files at `/console/`, which talk to the API like any other client.

`serving` answers for them; the files are in `static`, and the browser client beside them.
"""

from __future__ import annotations

from zaqar_gevent.console.serving import PATH, serve_console

__all__ = ['PATH', 'serve_console']
