"""Settings of all tests."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A busy machine is no failure, and a run is repeatable; `make nightly` looks for new examples.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell that runs the tests in the background has Ctrl-C ignored, by them and all they start; some test what it does.
signal.signal(signal.SIGINT, signal.default_int_handler)
