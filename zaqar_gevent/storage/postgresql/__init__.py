"""The stores in PostgreSQL, which servers share and which may be replicated.

driver       the drivers; their controllers are the other modules
servers      the databases of a process; kinds: of calls, each with a connection of its own
calls        calls gathered from greenlets, sent and answered together; outages
posting      posts of many greenlets, sent as one statement
wire         one connection; addresses: the URIs
schema       tables and functions (`sql/`), and their versions
upkeep       what a server does by itself: expiry, delayed messages

Nothing is imported here: the library for PostgreSQL is only there if it is used.
"""
