"""Benchmarks, printed by ``make bench``: speed relative to alternatives, and prediction errors."""
