"""A private certificate authority for a few devices on a desk, and a certificate for each member.

``DIR/ca.pem`` and ``DIR/ca.key`` are the authority; the key stays where it was made. ``DIR/NAME`` is what member NAME
needs, and all it may have: its own certificate and key, the authority's certificate, and the names of all members, by
which it knows who may send as whom (:mod:`planner.execution.wire.security`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

from planner.errors import ExecuteError
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.security import (
    AUTHORITY,
    MEMBERS,
    certificate_file,
    check_worker_name,
    key_file,
    read_members,
)
from planner.files import write_bytes_atomic, write_text_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

_AUTHORITY_KEY: Final = "ca.key"
_AUTHORITY_NAME: Final = "planner certificate authority"
_AUTHORITY_LIFE: Final = timedelta(days=3650)
_BEGIN: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""A small device without a battery-backed clock starts years back, and must be let in all the same."""


@dataclass(frozen=True)
class _Signed:
    """A certificate with its key."""

    certificate: Certificate
    key: EllipticCurvePrivateKey

    def write(self, certificate_path: Path, key_path: Path) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_bytes_atomic(key_path, key, private=True)
        write_bytes_atomic(certificate_path, self.certificate.public_bytes(Encoding.PEM))


def make_certificates(folder: Path, workers: Sequence[str], *, life: timedelta) -> tuple[str, ...]:
    """Make certificates for the workers and for the coordinator; what is there already stays as it is.

    A second call with more workers adds them, signed by the same authority, and brings every member's list of names up
    to date; the lists on the devices are then to be copied again.

    Parameters
    ----------
    life
        How long a new certificate holds, from now.

    Returns
    -------
    tuple
        All members, the coordinator first.

    Raises
    ------
    ExecuteError
        A name that no worker can have, or a folder that cannot be written or holds something else.
    """
    for worker in workers:
        check_worker_name(worker, where="planner certs")
    try:
        authority = _authority(folder)
        known = read_members(folder) if (folder / MEMBERS).exists() else ()
        members = tuple(dict.fromkeys((COORDINATOR, *known, *workers)))
        for member in members:
            own = folder / member
            if not (own / certificate_file(member)).exists():
                _sign(member, life, authority).write(own / certificate_file(member), own / key_file(member))
            write_bytes_atomic(own / AUTHORITY, (folder / AUTHORITY).read_bytes())
        for place in (folder, *(folder / member for member in members)):
            write_text_atomic(place / MEMBERS, "".join(f"{member}\n" for member in members))
    except OSError as error:
        raise ExecuteError(f"cannot be used: {error.strerror}", where=str(error.filename or folder)) from error
    return members


def _authority(folder: Path) -> _Signed:
    """Read the folder's authority, or make it."""
    if not (folder / AUTHORITY).exists():
        made = _sign(_AUTHORITY_NAME, _AUTHORITY_LIFE, None)
        made.write(folder / AUTHORITY, folder / _AUTHORITY_KEY)
        return made
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = load_pem_private_key((folder / _AUTHORITY_KEY).read_bytes(), None)
    except ValueError as error:
        raise ExecuteError(f"no certificate authority: {error}", where=str(folder)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ExecuteError("the key is not that of ca.pem", where=str(folder / _AUTHORITY_KEY))
    return _Signed(certificate, key)


def _sign(name: str, life: timedelta, authority: _Signed | None) -> _Signed:
    """Make a key, and a certificate for it: a member's by the authority, or the authority's own by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signs = authority is None
    usage = x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    # Every member both listens and connects. Whom it talks to is told by name, not by address: devices move.
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(datetime.now(timezone.utc) + life)
        .add_extension(x509.BasicConstraints(ca=signs, path_length=0 if signs else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if authority is not None:
        issuer = authority.key.public_key()
        builder = builder.add_extension(purposes, critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False
        )
    return _Signed(builder.sign((authority.key if authority else key), hashes.SHA256()), key)
