"""Refusals, by whatever answers HTTP requests without the REST application: in its form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zaqar_gevent.api import documents, errors
from zaqar_gevent.request_ids import HEADER, get_request_id


def refuse(
    start_response: Callable[..., Any], error: errors.APIError, *extra: tuple[str, str]
) -> Iterable[bytes]:
    """Answer with an error, and `extra` headers."""
    body = documents.encode_json(error.to_document())
    headers = [('Content-Type', 'application/json'), ('Content-Length', str(len(body))), *extra]
    start_response(f'{error.status} {error.title}', headers)
    return [body]


def refuse_early(
    start_response: Callable[..., Any], error: errors.APIError, *extra: tuple[str, str]
) -> Iterable[bytes]:
    """The same before the request has come to what gives each answer its id."""
    return refuse(start_response, error, *extra, (HEADER, get_request_id()))
