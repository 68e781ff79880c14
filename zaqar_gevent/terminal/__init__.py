"""The subcommands of `zaqar-gevent`: a client for the terminal and for scripts.

They import nothing of the server, and what they need only when it is needed.
"""
