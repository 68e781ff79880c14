"""For how long one client may be served before others have their turn."""

TURN_SECONDS = 0.005
"""A greenlet that has not waited for so long lets others run."""

BREAK_SECONDS = 0.0005
"""A greenlet that has waited for so long has let others run."""
