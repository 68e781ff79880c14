"""Encryption of message bodies.

options        the group `[encryption]`, and what it makes of the configuration
bodies         what is encrypted on posting and decrypted on reading, in whichever format
authenticated  this server's format: AES-256-GCM, bound to project and queue
upstream       the format of upstream's servers: AES-256-CBC
pickled        reads the pickles in that format, without running any

An encrypted body crosses the storage interface as `bytes`, a plain one never does: JSON has no
bytes, and the API refuses MsgPack's. So a store that keeps `bytes` apart from text keeps with each
message whether its body was encrypted.
"""
