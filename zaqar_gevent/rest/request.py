"""Requests as Falcon's responders get them."""

from __future__ import annotations

from typing import Any

import falcon


class Request(falcon.Request):
    """Falcon's request, which is made ready when somebody asks for what few need.

    query: what of the query has been read as arguments, by parameter.

    PERF: Falcon makes all of it ready at once, for each request.
    """

    __slots__ = ('_is_ready', 'query')

    def __init__(self, env: dict[str, Any], options: falcon.RequestOptions | None = None) -> None:
        self._is_ready = False
        self.query: dict[str, Any] = {}
        self.env = env
        self.options = options or falcon.RequestOptions()
        self.method = env['REQUEST_METHOD']
        path: str = env['PATH_INFO'] or '/'
        if path.startswith('//'):
            # Links made of it would name another host (RFC 3986, section 4.2).
            path = env['PATH_INFO'] = '/' + path.lstrip('/')
        if not path.isascii():
            # WSGI gives its bytes as if they were Latin-1.
            path = path.encode('latin-1').decode(errors='replace')
        self.path = path
        self.query_string = env.get('QUERY_STRING', '')
        if self.query_string:
            # Where Falcon has its parameters, without anything else.
            self._params = falcon.uri.parse_query_string(
                self.query_string,
                keep_blank=self.options.keep_blank_qs_values,
                csv=self.options.auto_parse_qs_csv,
            )
        self.content_type = env.get('CONTENT_TYPE')

    def __getattr__(self, name: str) -> Any:
        """An attribute that has not been set, so that Falcon has to set all of them."""
        if self._is_ready:
            raise AttributeError(name)
        self._is_ready = True
        super().__init__(self.env, self.options)
        return getattr(self, name)
