"""REST: every operation of the API as Zaqar's HTTP API v2 has it, built on Falcon."""

from zaqar_gevent.rest.app import build_app

__all__ = ['build_app']
