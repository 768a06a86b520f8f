"""Measured ratios, printed by ``make bench``: speed against the alternatives, and errors against measurements."""
