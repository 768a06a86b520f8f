"""A private certificate authority for a small group of devices, and a certificate for each member.

``DIR/ca.pem`` and ``DIR/ca.key`` are the authority; its key never leaves ``DIR``. ``DIR/NAME`` is everything that
member NAME needs and should have: its certificate and key, the authority's certificate, and the names of the valid
certificates of all members, from which it derives who may send what (:mod:`planner.execution.wire.security`).
``DIR/revoked.txt`` has the names of the certificates that have been revoked, none of which is given again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import count
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
    reissued,
)
from planner.files import write_bytes_atomic, write_text_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

_REVOKED: Final = "revoked.txt"
_AUTHORITY_KEY: Final = "ca.key"
_AUTHORITY_NAME: Final = "planner certificate authority"
_AUTHORITY_LIFE: Final = timedelta(days=3650)
_BEGIN: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)
"""Long ago, since a device without a battery-backed clock boots with a date in the past."""


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


def make_certificates(
    folder: Path, workers: Sequence[str], *, life: timedelta, revoke: Collection[str] = (), renew: bool = False
) -> tuple[str, ...]:
    """Create the missing certificates of the workers and of the coordinator; existing ones are kept.

    A call with new workers adds their certificates, signed by the same authority, and updates every member's list of
    names, which must then be copied to the devices again.

    Parameters
    ----------
    life
        Validity of new certificates, from now.
    revoke
        Members whose certificates are no longer valid. One that is among ``workers``, or the coordinator, gets another.
    renew
        Whether the workers get new certificates of the same names in place of existing ones.

    Returns
    -------
    tuple
        All members, the coordinator first.

    Raises
    ------
    ExecuteError
        A name is invalid, a member whose certificate is to be revoked has none, or the folder cannot be used as an
        authority.
    """
    for worker in workers:
        if worker != COORDINATOR or not renew:
            check_worker_name(worker, where="planner certs")
        if certificate_file(worker) == AUTHORITY:
            raise ExecuteError("this name is reserved for the authority", where="planner certs", value=worker)
    try:
        authority = _authority(folder)
        known = read_members(folder) if (folder / MEMBERS).exists() else {}
        for member in revoke:
            _revoke(folder, member, known)
        members = tuple(dict.fromkeys((COORDINATOR, *known, *workers)))
        certificates = {}
        for member in members:
            home = folder / member
            path = home / certificate_file(member)
            certificates[member] = known.get(member) or _unused_name(folder, member)
            if not path.exists() or (renew and member in workers):
                _sign(certificates[member], life, authority).write(path, home / key_file(member))
            write_bytes_atomic(home / AUTHORITY, (folder / AUTHORITY).read_bytes())
        for home in (folder, *(folder / member for member in members)):
            write_text_atomic(home / MEMBERS, "".join(f"{name}\n" for name in certificates.values()))
    except OSError as error:
        raise ExecuteError(f"cannot be used: {error.strerror}", where=str(error.filename or folder)) from error
    return members


def _revoke(folder: Path, member: str, known: dict[str, str]) -> None:
    """Note that a member's certificate is revoked, and remove it."""
    if member not in known:
        expected = f"one of {', '.join(known)}" if known else "a folder made by `planner certs`"
        raise ExecuteError("no certificate to revoke", where="--revoke", value=member, expected=expected)
    revoked = _revoked(folder)
    write_text_atomic(folder / _REVOKED, "".join(f"{name}\n" for name in (*revoked, known.pop(member))))
    for file in (certificate_file(member), key_file(member)):
        (folder / member / file).unlink(missing_ok=True)


def _revoked(folder: Path) -> list[str]:
    path = folder / _REVOKED
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def _unused_name(folder: Path, member: str) -> str:
    """Return the first name of a certificate of this member that has not been revoked."""
    revoked = _revoked(folder)
    return next(name for number in count(1) if (name := reissued(member, number)) not in revoked)


def _authority(folder: Path) -> _Signed:
    """Read the folder's authority, or create it."""
    if not (folder / AUTHORITY).exists():
        created = _sign(_AUTHORITY_NAME, _AUTHORITY_LIFE, None)
        created.write(folder / AUTHORITY, folder / _AUTHORITY_KEY)
        return created
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = load_pem_private_key((folder / _AUTHORITY_KEY).read_bytes(), None)
    except ValueError as error:
        raise ExecuteError(f"not a certificate authority: {error}", where=str(folder)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ExecuteError("the key does not belong to ca.pem", where=str(folder / _AUTHORITY_KEY))
    return _Signed(certificate, key)


def _sign(name: str, life: timedelta, authority: _Signed | None) -> _Signed:
    """Create a key and its certificate: a member's, signed by the authority, or the self-signed authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    is_authority = authority is None
    usage = x509.KeyUsage(
        digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    # Every member both listens and connects. Members are identified by name, not by address: devices move.
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(datetime.now(timezone.utc) + life)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if authority is not None:
        issuer = authority.key.public_key()
        builder = builder.add_extension(purposes, critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False
        )
    return _Signed(builder.sign((authority.key if authority else key), hashes.SHA256()), key)
