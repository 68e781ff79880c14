"""Measurements: what requests cost the server, beside what others would be used instead.

Each module is a program, run from the project's root (`python -m perf.compare --quick`);
`python -m perf.run` runs them all and writes the tables, the charts and the documentation.
"""
