"""For how long one client may be served before others have their turn."""

TIME_SLICE_SECONDS = 0.005
"""A greenlet that has run for this long without waiting lets others run."""

BREAK_SECONDS = 0.0005
"""A wait of at least this long has let others run."""
