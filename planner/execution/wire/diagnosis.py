"""Why an address does not lead to an agent: Zenoh tries again for ever, and says nothing to the caller."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from planner.execution.wire.security import AUTHORITY, Credentials, certificate_file, key_file

_TIMEOUT_S: Final = 1.0
_VERDICT_S: Final = 0.3
"""In TLS 1.3 the other end judges a certificate only after the handshake; it says so within this time."""

_EXPIRED: Final = 10
"""OpenSSL's ``X509_V_ERR_CERT_HAS_EXPIRED``."""


def in_words(faults: Mapping[str, str]) -> str:
    """Return addresses that lead nowhere, each with the reason, to be added to a message; empty without any."""
    return "".join(f"; {address}: {reason}" for address, reason in faults.items())


def diagnose(address: str, credentials: Credentials | None) -> str | None:
    """Return what is wrong with an address, in words; None if a member listens there that lets this one in.

    Parameters
    ----------
    address
        ``HOST:PORT``.
    credentials
        Those of this member; None without certificates.
    """
    host, _, port = address.rpartition(":")
    try:
        link = socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_S)
    except socket.gaierror:
        return "no such host"
    except ConnectionRefusedError:
        return "nobody listens there"
    except OSError as error:
        return "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
    with contextlib.closing(link):
        return _without_certificates(link) if credentials is None else _with_certificates(link, credentials)


def _without_certificates(link: socket.socket) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(link):
            return "it uses certificates, and none were given (--cert-dir)"
    except OSError:  # it does not speak TLS
        return None


def _with_certificates(link: socket.socket, credentials: Credentials) -> str | None:
    folder, name = credentials.folder, credentials.name
    context = ssl.create_default_context(cafile=str(folder / AUTHORITY))
    context.check_hostname = False  # certificates name members, not hosts
    try:
        context.load_cert_chain(folder / certificate_file(name), folder / key_file(name))
        with context.wrap_socket(link) as secured:
            return _verdict(secured)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return "its certificate has expired"
        return f"its certificate is of another authority ({error.verify_message})"
    except ssl.SSLError as error:
        return _refusal(error) if "ALERT" in (error.reason or "") else _NO_TLS
    except OSError:
        return _NO_TLS


_NO_TLS: Final = "it uses no certificates; start it with --cert-dir, too"


def _verdict(secured: ssl.SSLSocket) -> str | None:
    secured.settimeout(_VERDICT_S)
    try:
        secured.recv(1)
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        return _refusal(error)
    except OSError:
        return None
    return None


def _refusal(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).rpartition("ALERT_")[2].replace("_", " ").lower()
    return f"it refuses this member's certificate ({reason})"
