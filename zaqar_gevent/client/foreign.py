"""Answers that no Zaqar gives: of another server at the URL, or of something on the way to it."""

from __future__ import annotations

MAX_QUOTED_CHARACTERS = 160
# Only so much of an answer is looked at.
_MAX_BYTES = 2000

REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
# What gateways and proxies answer in their own words, though there is a Zaqar behind them.
_OF_INTERMEDIARIES = frozenset({401, 403, 407, 408, 413, 429, 431})
_NOT_IMPLEMENTED = 501


def is_foreign(status: int) -> bool:
    """Whether an error that is not in JSON says that there is no Zaqar."""
    return status == _NOT_IMPLEMENTED or (status < 500 and status not in _OF_INTERMEDIARIES)


def describe(url: str, status: int, content: bytes, location: str | None = None) -> str:
    """What to tell of such an answer.

    url: of the server. location: where the answer redirects to.
    """
    if status in REDIRECTIONS and location:
        said = f' and sends clients to {quote(location.partition("?")[0].encode())}'
    else:
        said = f': {quote(content)}' if content.strip() else ' with nothing in it'
    return f'The server at {url} is no Zaqar: it answered {status}{said}'


def quote(content: bytes) -> str:
    """The beginning of what was answered, in one line that can be printed."""
    line = ' '.join(content[:_MAX_BYTES].decode(errors='replace').split())
    printable = ''.join(one if one.isprintable() else '?' for one in line)
    if len(printable) <= MAX_QUOTED_CHARACTERS:
        return printable
    return f'{printable[:MAX_QUOTED_CHARACTERS]}...'


def no_http(url: str, error: BaseException) -> str:
    """What to tell of a server that answers something else than HTTP."""
    said = quote(_words(error).encode())
    return f'The server at {url} is no Zaqar: it does not answer in HTTP ({said}).'


def unreachable(url: str, error: BaseException) -> str:
    """What to tell where there is no connection to be had."""
    return f'{url} cannot be reached: {_words(error)}'


def unanswered(url: str, error: BaseException) -> str:
    """What to tell of a connection that ended before the answer."""
    return (
        f'The server at {url} ended the connection without an answer ({_words(error)}). If it goes '
        'on so, it may be no Zaqar.'
    )


def root_of(error: BaseException) -> BaseException:
    """The exception at the bottom of those that libraries wrap it in."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            inner: BaseException | None = error.exceptions[0]
        else:
            wrapped = (one for one in error.args if isinstance(one, BaseException))
            inner = error.__cause__ or next(wrapped, None)
        if inner is None:
            return error
        error = inner


def _words(error: BaseException) -> str:
    root = root_of(error)
    return str(root) or type(root).__name__
