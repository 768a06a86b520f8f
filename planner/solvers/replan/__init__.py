"""Solving again while a run goes on: what is left, and the process that does it."""
