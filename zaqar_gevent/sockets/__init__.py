"""Sockets of clients: reading, writing, and the bytes that wait to be written."""
