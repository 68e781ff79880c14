"""Encryption of message bodies.

options        the group `[encryption]`, and what it makes of the configuration
bodies         what is encrypted on posting and decrypted on reading, in whichever format
authenticated  this server's format: AES-256-GCM, bound to project and queue
upstream       the format of upstream's servers: AES-256-CBC
pickled        reads the pickles in that format, without running any

Bodies are encrypted as they are encoded. An encrypted one crosses the storage interface as such, so
a store keeps with each message whether its body was encrypted. Stores that keep values get `bytes`
for it, which no plain body is: JSON has no bytes, and the API refuses MsgPack's.
"""
