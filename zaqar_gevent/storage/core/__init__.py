"""The parts that all stores of this project share.

`completions` wakes callers, in greenlets and in native threads, when their calls are done.
`thread_pool` performs calls in native threads, `fair_queue` lets projects take turns there, and
`batches` performs the calls of one transaction. `links` sends calls over a socket of the hub, for
stores that are other servers. `handles` counts the drivers that use a store, and `outages` logs
what goes wrong. A store adds how it performs a batch, how it reads, and its statements or scripts.
"""
