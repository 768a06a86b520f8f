"""Campaign: random runs of the worker state machine under faults; ``python -m tests.campaign --help``."""
