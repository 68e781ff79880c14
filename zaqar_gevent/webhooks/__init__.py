"""Delivers notifications to subscribers over HTTP, and by upstream's tasks for mail and others.

`deliveries` is the whole, and `assembly` builds it. `scheduler` decides, without I/O, whose turn it
is: a `backlog` is what waits for one subscription, and `shares` bound how many run at a time.
`sender` makes one request of a webhook, over `connections` to addresses that `resolver` finds;
`answers` reads as much of an answer as is needed; `trusts` gives tokens. `tasks` runs upstream's
tasks.

Where webhooks may go, what their options may be, when they are retried and how they are signed is
in `zaqar_gevent.api`, which checks it when a subscription is made.
"""
