"""A member's own certificate: whether it fits its key and authority, its name, and when it ends.

An agent has no library for certificates. The one function of Python's own that reads a certificate returns that of the
other end of a connection; so both ends are played here, in memory.
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.errors import ExecuteError

_LOG = logging.getLogger(__name__)

ANNOUNCED_S: Final = 30 * 86400.0
"""How long before its end a certificate is announced to end, in seconds."""

_PERIOD_S: Final = 86400.0
_ROUNDS: Final = 4
_NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's flag to leave out dates: the clock of a device that boots may be wrong."""


@dataclass(frozen=True)
class OwnCertificate:
    """What a certificate says.

    Parameters
    ----------
    name
        Its common name.
    ends_unix_s
        Its end, in seconds since 1970.
    """

    name: str
    ends_unix_s: float

    @property
    def left_s(self) -> float:
        """Seconds until its end."""
        return self.ends_unix_s - time.time()

    @property
    def notice(self) -> str:
        """That it ends soon; empty if it does not."""
        return notice_of_end(self.left_s)


def notice_of_end(left_s: float) -> str:
    """Return that a certificate ends in so many seconds; an empty text if that is more than a month."""
    if left_s > ANNOUNCED_S:
        return ""
    when = f"ends in {left_s / 86400:.0f} days" if left_s > 0 else "has ended"
    return f"its certificate {when}; renew it with `planner certs DIR NAME --renew`"


def read_own_certificate(authority: Path, certificate: Path, key: Path) -> OwnCertificate:
    """Read a certificate, and check that its key and its authority are these.

    Raises
    ------
    ExecuteError
        If they are not.
    """
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False  # members are known by name, not by address
        client.verify_flags |= _NO_CHECK_TIME
        client.load_verify_locations(authority)
        found = _presented(client, server)
    except OSError as error:  # which those of OpenSSL are
        what = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error.strerror
        expected = f"the certificate of {key.name}, signed by {authority.name}"
        raise ExecuteError(f"not a valid certificate: {what}", where=str(certificate), expected=expected) from error
    names = [value for part in found["subject"] for key_, value in part if key_ == "commonName"]
    return OwnCertificate(names[0] if names else "", float(ssl.cert_time_to_seconds(found["notAfter"])))


def _presented(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """Return the certificate that a server presents to a client."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_end = client.wrap_bio(to_client, to_server)
    ends = client_end, server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUNDS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client_end.getpeercert() or {}


class EndNotice:
    """Logs once a day that a member's certificate ends soon."""

    def __init__(self, member: str, ends_unix_s: float | None) -> None:
        self._member = member
        self._ends_unix_s = ends_unix_s
        self._next_s = time.monotonic()

    def log_if_due(self) -> None:
        """Log it, if it is so and has not been logged for a day."""
        now_s = time.monotonic()
        if self._ends_unix_s is None or now_s < self._next_s:
            return
        self._next_s = now_s + _PERIOD_S
        if notice := notice_of_end(self._ends_unix_s - time.time()):
            _LOG.warning("%s: %s", self._member, notice)
