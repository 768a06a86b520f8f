"""Counts of requests by what became of them, and their log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from planner.serve.refusals import Reason, RefusalError

ACCESS: logging.Logger = logging.getLogger("planner.access")
"""Logs each request; silent unless it is enabled."""


class Traffic:
    """Counts requests; all methods belong to the thread of the event loop."""

    def __init__(self, *, access_log: bool) -> None:
        self._access_log = access_log
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """Number of requests by model, protocol, and ``OK`` or the name of the status of gRPC."""

    @contextmanager
    def request(self, model: str, protocol: str) -> Iterator[None]:
        """Count the request that is handled within the context."""
        began_s = time.monotonic()
        code, why = "OK", ""
        try:
            yield
        except RefusalError as error:
            code, why = error.reason.grpc, error.message
            raise
        except BaseException:
            code = "CANCELLED"
            raise
        finally:
            # A client may invent any number of names.
            self.requests["" if code == Reason.NOT_FOUND.grpc else model, protocol, code] += 1
            if self._access_log:
                took_s = time.monotonic() - began_s
                extra = {"model": model, "protocol": protocol, "code": code, "took_s": round(took_s, 6)}
                ACCESS.info("%s %s %s %.1f ms%s", protocol, model, code, took_s * 1e3, why and f": {why}", extra=extra)
