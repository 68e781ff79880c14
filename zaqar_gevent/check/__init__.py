"""`zaqar-gevent check`: looks for what is wrong with a server, without starting it.

A check is a function that takes the configuration and yields findings; it is added to `CHECKS`.
"""

from zaqar_gevent.check.main import CHECKS, main

__all__ = ['CHECKS', 'main']
