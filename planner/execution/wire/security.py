"""Authentication and authorisation of members.

1. A member that listens on, or connects to, an address outside the loopback interface needs certificates or the option
   ``--insecure``.
2. With certificates every link uses mutual TLS: both ends present a certificate of the same private authority.
3. A certificate's name is the member's name. A message's key names its sender, and a link carries only messages of the
   member whose certificate opened it: no worker can impersonate the coordinator or another worker.
   A certificate that replaces a revoked one is called ``NAME#2``, then ``NAME#3`` and so on. Each member has the list
   of the certificates that are valid, and a link of any other carries nothing: Zenoh knows no revocation lists.
4. A member may subscribe only to messages for itself, and announce only itself.
5. Only the coordinator sends commands; a worker reports only about itself.
6. Certificates contain names but no addresses, since devices move.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from planner.errors import ExecuteError
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import COORDINATOR, Body, Command, Transmit
from planner.execution.wire.own_certificate import OwnCertificate, read_own_certificate

AUTHORITY: Final = "ca.pem"
MEMBERS: Final = "members.txt"

_NAME: Final = re.compile(r"\w[\w.-]*")
_REISSUED: Final = "#"
"""Joins name and number in the name of a certificate; no name of a worker has it."""

ROOT: Final = "planner/v1"
"""Prefix of all keys."""


def certificate_file(member: str) -> str:
    """Return the name of a member's certificate in its folder."""
    return f"{member}.pem"


def key_file(member: str) -> str:
    """Return the name of a member's key in its folder."""
    return f"{member}.key"


def inbox(member: str, sender: str) -> str:
    """Return the key of messages between two members, each given as ``NAME/PROCESS``; ``*`` stands for any."""
    return f"{ROOT}/to/{member}/from/{sender}"


def alive(member: str, label: str = "*") -> str:
    """Return the key of the presence of a member, given as ``NAME/PROCESS``; ``*`` stands for any.

    The label states where it runs (:class:`planner.execution.wire.whereabouts.Whereabouts`).
    """
    return f"{ROOT}/alive/{member}/{label}"


def member_of(certificate: str) -> str:
    """Return the member whose certificate has this name."""
    return certificate.partition(_REISSUED)[0]


def reissued(member: str, number: int) -> str:
    """Return the name of a member's certificate, the first or one that replaces a revoked one."""
    return member if number == 1 else f"{member}{_REISSUED}{number}"


def check_worker_name(name: str, *, where: str) -> None:
    """Check the name of a worker.

    Raises
    ------
    ExecuteError
        It has characters with a meaning in file names or keys, or is reserved for the coordinator.
    """
    if not _NAME.fullmatch(name):
        expected = "a letter, digit or _, then letters, digits, _, . and -"
        raise ExecuteError("invalid worker name", where=where, value=name, expected=expected)
    if name == COORDINATOR:
        raise ExecuteError("this name is reserved for the coordinator", where=where, value=name)


def read_members(folder: Path) -> dict[str, str]:
    """Read the names of the valid certificates, by member.

    Raises
    ------
    ExecuteError
        The list cannot be read.
    """
    path = folder / MEMBERS
    try:
        return {member_of(name): name for name in path.read_text(encoding="utf-8").split()}
    except (OSError, UnicodeDecodeError) as error:
        raise ExecuteError(
            f"cannot be read: {error}", where=str(path), expected="a folder made by `planner certs`"
        ) from None


@dataclass(frozen=True)
class Credentials:
    """A member's certificate and key, and the names of the valid certificates of all members."""

    name: str
    folder: Path
    certificates: Mapping[str, str]
    own: OwnCertificate

    @property
    def members(self) -> tuple[str, ...]:
        """Names of all members."""
        return tuple(self.certificates)

    @classmethod
    def read(cls, folder: Path, name: str) -> Credentials:
        """Read a member's folder: ``folder`` itself, or its subfolder of the member's name.

        Raises
        ------
        ExecuteError
            A file is missing, other users may read the key, or the certificate is not valid, revoked or at its end.
        """
        folder = folder / name if (folder / name).is_dir() else folder
        certificates = read_members(folder)
        for file in (AUTHORITY, certificate_file(name), key_file(name)):
            if not (folder / file).is_file():
                expected = f"the folder that `planner certs` made for {name}"
                raise ExecuteError("no such file", where=str(folder / file), expected=expected)
        mode = (folder / key_file(name)).stat().st_mode & 0o777
        if mode & 0o077:
            where = str(folder / key_file(name))
            raise ExecuteError("other users may read this key", where=where, value=f"{mode:03o}", expected="mode 600")
        certificate = folder / certificate_file(name)
        own = read_own_certificate(folder / AUTHORITY, certificate, folder / key_file(name))
        if own.name != certificates.get(name):
            listed = certificates.get(name) or f"no certificate of {name}"
            expected = f"{listed}, as in {MEMBERS}"
            what = "not the valid certificate of this member: revoked, or another's"
            raise ExecuteError(what, where=str(certificate), value=own.name, expected=expected)
        if own.left_s <= 0:
            raise ExecuteError(own.notice, where=str(certificate))
        return cls(name, folder, certificates, own)

    def settings(self) -> dict[str, Any]:
        """Return Zenoh's settings for mutual TLS and access control, by key."""
        certificate, key = str(self.folder / certificate_file(self.name)), str(self.folder / key_file(self.name))
        return {
            "transport/link/tls": {
                "root_ca_certificate": str(self.folder / AUTHORITY),
                "enable_mtls": True,
                "listen_certificate": certificate,
                "listen_private_key": key,
                "connect_certificate": certificate,
                "connect_private_key": key,
                "verify_name_on_connect": False,
                "close_link_on_expiration": True,
            },
            "access_control": self._access(),
        }

    def _access(self) -> dict[str, Any]:
        """Return the allowed messages; both ends of a link drop all others."""

        def rule(name: str, flow: str, messages: Sequence[str], *keys: str) -> dict[str, Any]:
            return {
                "id": name, "permission": "allow", "flows": [flow], "messages": list(messages), "key_exprs": list(keys),
            }  # fmt: skip

        watching = ("declare_liveliness_subscriber", "liveliness_query")
        everything = ("put", "declare_subscriber", "liveliness_token", *watching)
        rules = [rule("send", "egress", everything, f"{ROOT}/**"), rule("watch", "ingress", watching, alive("*/*"))]
        policies = []
        for member in self.members:
            of_member = [
                rule(f"{member} sends", "ingress", ["put"], inbox("*/*", f"{member}/*")),
                rule(f"{member} listens", "ingress", ["declare_subscriber"], inbox(f"{member}/*", "*/*")),
                rule(f"{member} is present", "ingress", ["liveliness_token"], alive(f"{member}/*")),
            ]
            rules += of_member
            policies.append({"rules": ["send", "watch", *(entry["id"] for entry in of_member)], "subjects": [member]})
        return {
            "enabled": True,
            "default_permission": "deny",
            "rules": rules,
            "subjects": [
                {"id": member, "cert_common_names": [certificate]} for member, certificate in self.certificates.items()
            ],
            "policies": policies,
        }


_COMMANDS: Final = frozenset(get_args(Command))
_REPORTS: Final = frozenset(body for body in get_args(Body) if "worker" in body.model_fields)
"""Messages that say which worker they are of; to ask each message would take longer than all else here."""


def check_sender(frame: Frame) -> None:
    """Check that a message is one its sender may send; :mod:`planner.execution.wire.checks` checks its content.

    Raises
    ------
    ExecuteError
        It is not.
    """
    body = frame.body
    if type(body) in _COMMANDS:
        allowed = COORDINATOR
    elif isinstance(body, Transmit):
        allowed = body.sender
    else:
        allowed = getattr(body, "worker", frame.sender) if type(body) in _REPORTS else frame.sender
    if frame.sender != allowed:
        what = f"this member may not send {body.kind!r}"
        raise ExecuteError(what, where="sender", value=frame.sender, expected=allowed)


def refuse_open(hosts: Sequence[str]) -> None:
    """Refuse addresses outside the loopback interface, for a member without certificates.

    Raises
    ------
    ExecuteError
        Names the first such address.
    """
    for host in hosts:
        if not is_loopback(host):
            expected = "certificates (--cert-dir, made by `planner certs`), or --insecure on a network you trust"
            raise ExecuteError("outside the loopback interface", where="address", value=host, expected=expected)


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable only from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
