"""Who may talk to whom: encryption and names off the loopback interface.

1. A member that listens on, or connects to, an address off the loopback interface needs certificates, or is told
   ``--insecure``.
2. With certificates every link is mutual TLS: both ends show a certificate of the same private authority.
3. A certificate's name is the member's name. A message's key says who sends it, and a link carries only messages of the
   member whose certificate it was opened with: no worker can pass for the coordinator, or for another worker.
4. A member may ask for messages to itself only, and announce itself only.
5. Only the coordinator deploys, starts, stops, hands in and asks; a worker reports about itself only.
6. Addresses are not part of a certificate, since devices move; names are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.errors import ExecuteError
from planner.execution.wire.diagnostics import About, Chunk, Echo, Flooded, Pinged
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    COORDINATOR,
    Data,
    Ended,
    Load,
    Log,
    Missing,
    Output,
    Ready,
    Refused,
    Report,
    Transmit,
    WorkerFault,
)

AUTHORITY: Final = "ca.pem"
MEMBERS: Final = "members.txt"

_NAME: Final = re.compile(r"\w[\w.-]*")

ROOT: Final = "planner/v1"
"""All keys begin so."""


def certificate_file(member: str) -> str:
    """Name a member's certificate in its folder."""
    return f"{member}.pem"


def key_file(member: str) -> str:
    """Name a member's key in its folder."""
    return f"{member}.key"


def inbox(member: str, sender: str) -> str:
    """Give the key of what ``sender`` has for ``member``; ``*`` stands for any."""
    return f"{ROOT}/to/{member}/from/{sender}"


def alive(member: str) -> str:
    """Give the key of a member's presence; ``*`` stands for any."""
    return f"{ROOT}/alive/{member}"


def check_worker_name(name: str, *, where: str) -> None:
    """Refuse what no worker can be called.

    Raises
    ------
    ExecuteError
        Characters that mean something in file names and keys, or the coordinator's own name.
    """
    if not _NAME.fullmatch(name):
        expected = "a letter, digit or _, then letters, digits, _, . and -"
        raise ExecuteError("not a worker's name", where=where, value=name, expected=expected)
    if name == COORDINATOR:
        raise ExecuteError("this name is the coordinator's own", where=where, value=name)


def read_members(folder: Path) -> tuple[str, ...]:
    """Read the names of all members.

    Raises
    ------
    ExecuteError
        The list cannot be read.
    """
    path = folder / MEMBERS
    try:
        return tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise ExecuteError(
            f"cannot be read: {error}", where=str(path), expected="a folder by `planner certs`"
        ) from None


@dataclass(frozen=True)
class Credentials:
    """What a member shows the others, and whom it knows."""

    name: str
    folder: Path
    members: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, name: str) -> Credentials:
        """Look a member's folder through: the one given, or the one of that name in the authority's.

        Raises
        ------
        ExecuteError
            A file is missing, or others may read the key.
        """
        folder = folder / name if (folder / name).is_dir() else folder
        members = read_members(folder)
        for file in (AUTHORITY, certificate_file(name), key_file(name)):
            if not (folder / file).is_file():
                expected = f"the folder that `planner certs` made for {name}"
                raise ExecuteError("no such file", where=str(folder / file), expected=expected)
        mode = (folder / key_file(name)).stat().st_mode & 0o777
        if mode & 0o077:
            where = str(folder / key_file(name))
            raise ExecuteError("others may read this key", where=where, value=f"{mode:03o}", expected="mode 600")
        return cls(name, folder, members)

    def settings(self) -> dict[str, Any]:
        """Give Zenoh's settings for mutual TLS and for who may send what, by key."""
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
        """Say what may pass; both ends of a link drop everything else."""

        def rule(name: str, flow: str, messages: Sequence[str], *keys: str) -> dict[str, Any]:
            return {
                "id": name, "permission": "allow", "flows": [flow], "messages": list(messages), "key_exprs": list(keys),
            }  # fmt: skip

        watching = ("declare_liveliness_subscriber", "liveliness_query")
        everything = ("put", "declare_subscriber", "liveliness_token", *watching)
        rules = [rule("send", "egress", everything, f"{ROOT}/**"), rule("watch", "ingress", watching, alive("*"))]
        policies = []
        for member in self.members:
            own = [
                rule(f"{member} sends", "ingress", ["put"], inbox("*", member)),
                rule(f"{member} listens", "ingress", ["declare_subscriber"], inbox(member, "*")),
                rule(f"{member} is there", "ingress", ["liveliness_token"], alive(member)),
            ]
            rules += own
            policies.append({"rules": ["send", "watch", *(entry["id"] for entry in own)], "subjects": [member]})
        return {
            "enabled": True,
            "default_permission": "deny",
            "rules": rules,
            "subjects": [{"id": member, "cert_common_names": [member]} for member in self.members],
            "policies": policies,
        }


_OF_WORKERS: Final = frozenset((
    Missing, Ready, Ended, Load, Log, Output, Report, WorkerFault, Refused, About, Chunk, Flooded, Echo, Pinged, Data,
    Transmit,
))  # fmt: skip
"""What a worker may say; everything else is the coordinator's."""


def check_sender(frame: Frame) -> None:
    """Refuse what its sender may not say; :mod:`planner.execution.wire.checks` looks at what is in it.

    Raises
    ------
    ExecuteError
        Names the sender.
    """
    body = frame.body
    if type(body) not in _OF_WORKERS:
        allowed = COORDINATOR
    elif isinstance(body, Transmit):
        allowed = body.sender
    else:
        allowed = getattr(body, "worker", frame.sender)
    if frame.sender != allowed:
        what = f"{body.kind!r} is not this member's to say"
        raise ExecuteError(what, where="sender", value=frame.sender, expected=allowed)


def refuse_open(hosts: Sequence[str]) -> None:
    """Refuse addresses off the loopback interface, for a member that has no certificates.

    Raises
    ------
    ExecuteError
        Names the first of them.
    """
    for host in hosts:
        if not is_loopback(host):
            expected = "certificates (--cert-dir, made by `planner certs`), or --insecure on a network you trust"
            raise ExecuteError("not the loopback interface", where="address", value=host, expected=expected)


def is_loopback(host: str) -> bool:
    """Tell whether only processes of this machine reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
