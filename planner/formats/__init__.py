"""Formats of files from outside: bytes in, plain values out, and of all that can go wrong only a ``ValueError``.

One module per format. The readers of scenarios, profiles, plans and samples check the values further, and turn the
error into the :class:`~planner.errors.PlannerError` of their area.
"""
