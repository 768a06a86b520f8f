"""The functions and classes of ``import planner``; the command line calls the same."""
