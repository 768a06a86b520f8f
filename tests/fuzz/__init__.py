"""Malformed input for every reader, made from real files; ``python -m tests.fuzz --help`` says how to run many cases.

Each module of :mod:`tests.fuzz.targets` is one reader with its cases. :mod:`tests.fuzz.judge` says what may happen: a
result or a ``PlannerError``, within bounds of time and memory. Cases that showed a defect are kept as small tests
beside the reader.
"""
