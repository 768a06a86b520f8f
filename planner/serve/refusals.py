"""Why a request gets no result, and how HTTP and gRPC say so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why a request gets no result: status code of HTTP, name of the status of gRPC."""

    INVALID = 400, "INVALID_ARGUMENT"
    NOT_FOUND = 404, "NOT_FOUND"
    TOO_LARGE = 413, "RESOURCE_EXHAUSTED"
    ENCODING = 415, "INVALID_ARGUMENT"
    BUSY = 429, "RESOURCE_EXHAUSTED"
    FAILED = 500, "INTERNAL"
    UNSUPPORTED = 501, "UNIMPLEMENTED"
    UNAVAILABLE = 503, "UNAVAILABLE"
    LATE = 504, "DEADLINE_EXCEEDED"

    @property
    def http(self) -> int:
        """Status code of the HTTP response."""
        return self.value[0]

    @property
    def grpc(self) -> str:
        """Name of the status of gRPC."""
        return self.value[1]


@dataclass
class RefusalError(Exception):
    """A request that gets no result.

    Parameters
    ----------
    message
        What is told to the client.
    retry_after_s
        After how many seconds it may be worth another try; None where that is not known.
    """

    reason: Reason
    message: str
    retry_after_s: int | None = None

    def __str__(self) -> str:
        return self.message
