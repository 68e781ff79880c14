"""A load test with Locust: a realistic mix of users on one server.

    locust -f perf/locustfile.py --host http://127.0.0.1:8888              # the web page
    locust -f perf/locustfile.py --host ... --headless -u 200 -r 50 -t 1m  # without it

By default everybody takes part, by their weights; class names choose (`... RestProducer Watcher`).
`python -m perf.locust_run` starts a server, runs it without the page, and writes the report.
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from perf.users import (
    Consumer,
    RestProducer,
    RestReader,
    RestWorker,
    Watcher,
    WebSocketProducer,
    WebSocketWorker,
)

__all__ = [
    'Consumer',
    'RestProducer',
    'RestReader',
    'RestWorker',
    'Watcher',
    'WebSocketProducer',
    'WebSocketWorker',
]
