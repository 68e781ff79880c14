"""The native drivers for Redis, on upstream's keys and formats.

driver       the drivers; their controllers are the other modules
calls        calls gathered from greenlets, sent and answered together; outages
wire         one connection; addresses: the URIs
servers      the servers of a process, and the scripts that run there (`scripts/`)

Nothing is imported here: the library for Redis is only there if it is used.
"""
