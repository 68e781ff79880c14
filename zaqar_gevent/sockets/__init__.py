"""Sockets of clients: what is read from them, and what waits to be written to them."""
