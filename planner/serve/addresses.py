"""Addresses on which a service listens."""

from __future__ import annotations

import socket
from typing import NamedTuple

from planner.errors import ExecuteError, UsageError


class Address(NamedTuple):
    """Where a server listens; port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str, where: str) -> Address:
    """Read ``HOST:PORT``; an IPv6 address has brackets.

    Raises
    ------
    UsageError
        If it is not of this form.
    """
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not (port.isascii() and port.isdigit() and int(port) < 2**16):
        raise UsageError("not an address", where=where, value=text, expected="HOST:PORT, such as 127.0.0.1:8000")
    return Address(bare, int(port))


def bind(address: Address, where: str) -> socket.socket:
    """Return a socket bound to an address, which does not accept connections yet.

    Raises
    ------
    ExecuteError
        If this device has no such address, or it is in use.
    """
    try:
        flags = socket.AI_PASSIVE
        family, kind, protocol, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=flags)[0]
        # With its protocol: without one, asyncio would leave the delay of small packets on, 40 ms for each response.
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(address, where, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(found)
    except OSError as error:
        bound.close()
        raise _unusable(address, where, error) from error
    return bound


def _unusable(address: Address, where: str, error: OSError) -> ExecuteError:
    what = f"cannot listen: {error.strerror}"
    return ExecuteError(what, where=where, value=str(address), expected="a free address of this device")
