"""WebSocket: every operation of the API as an action, JSON in text frames or MsgPack in binary.

The layers, from the bytes up: `frames` (RFC 6455), `connection` (a socket and its greenlet),
`upgrade` (how a connection comes about), `session` (what a client says and is answered),
`envelope` and `codecs` (how it is written).
"""
