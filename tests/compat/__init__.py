"""Upstream's own tests, as they ship in the zaqar package, run against this implementation.

They choose a store by the name of a configuration file, so files of the same names choose ours.
"""
