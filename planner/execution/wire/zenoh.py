"""The transport over Eclipse Zenoh, by TCP or by mutual TLS.

Members are peers that find each other by gossip from the coordinator's address; those that are asked to also announce
themselves to the local network by multicast, and connect to whoever does likewise. Each declares a liveliness token,
from which the others learn that it joins and leaves.

Two members have one link. A second link for urgent data would keep it out of the socket buffer that bulk data fills,
but Zenoh numbers the messages of a priority and drops those that arrive out of order, as some do while a second link is
being opened; occasionally a member would never discover another one. Instead, :mod:`planner.execution.wire.lanes`
limits the data in buffers.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import zenoh

from planner.errors import ExecuteError
from planner.execution.wire.diagnosis import diagnose
from planner.execution.wire.fragments import MAX_HEADER_BYTES, MAX_PIECE_BYTES, Fragment, split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.limits import Limits
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.presence import Roster, identifier_of, process_of
from planner.execution.wire.security import Credentials, alive, inbox, refuse_open
from planner.execution.wire.threads import surviving
from planner.execution.wire.transport import (
    CONTROL,
    PRESENCE_PERIOD_S,
    Connect,
    OnAcknowledged,
    OnFrame,
    OnPresence,
    Receiver,
    Transport,
)
from planner.execution.wire.whereabouts import Whereabouts

_LOG = logging.getLogger(__name__)

_LEASE_MS: Final = 900
"""A silent link counts as broken after this time; detection takes up to a tenth of a second more."""

_BLOCKED_US: Final = 2_000_000
"""A link that accepts nothing for this long is closed."""

_DROPPED_US: Final = 100_000
"""An acknowledgement that waits this long for a place in the link's queue is dropped. The default, a hundredth of this,
drops some whenever a processor is busy."""

_QUEUED_BATCHES: Final = 16
"""Batches of 64 KiB in a queue; the library's maximum. With the default of two, the sending thread and the thread that
writes to the socket keep waiting for each other: a megabyte over loopback takes a third longer."""

GROUP: Final = "PLANNER_DISCOVERY_GROUP"
"""Environment variable of the multicast group by which members find each other."""

_DEFAULT_GROUP: Final = "224.0.0.224:7448"

_PORTS: Final = 3
"""Ports that are tried where any would do."""

_LEVELS: Final = {
    "real_time": zenoh.Priority.REAL_TIME,
    "interactive_high": zenoh.Priority.INTERACTIVE_HIGH,
    "interactive_low": zenoh.Priority.INTERACTIVE_LOW,
    "data_high": zenoh.Priority.DATA_HIGH,
    "data": zenoh.Priority.DATA,
    "data_low": zenoh.Priority.DATA_LOW,
    "background": zenoh.Priority.BACKGROUND,
}
"""Most urgent first, by the names of their queues."""

_PRIORITIES: Final = tuple(_LEVELS.values())


def zenoh_connect(
    name: str,
    *,
    listen: str | None,
    connect: Sequence[str],
    cert_dir: Path | None = None,
    insecure: bool = False,
    discover: bool = False,
) -> Connect:
    """Return a function that opens the transport of member ``name``.

    Parameters
    ----------
    listen
        ``HOST:PORT``; by default a free port of the loopback interface.
    connect
        ``HOST:PORT`` of members to connect to; they may start later.
    cert_dir
        The member's folder made by ``planner certs``; all links then use mutual TLS.
    insecure
        Whether to allow addresses outside the loopback interface without certificates.
    discover
        Whether to announce this member on the local network by multicast, and to connect to members that do likewise.
        Certificates decide who is let in, as for any other connection.

    Raises
    ------
    ExecuteError
        An address is malformed, or outside the loopback interface without certificates, or members are to be discovered
        without certificates, or (when opened) cannot be
        listened on; or the certificates are not this member's; or a bound in the environment
        (:mod:`planner.execution.wire.limits`) is invalid.
    """
    credentials = Credentials.read(cert_dir, name) if cert_dir is not None else None
    if credentials is not None and credentials.own.notice and name == COORDINATOR:  # an agent logs it daily
        _LOG.warning("%s: %s", name, credentials.own.notice)
    protocol = "tcp" if credentials is None else "tls"
    listens = _endpoint(protocol, listen or "127.0.0.1:0")
    connects = [_endpoint(protocol, address) for address in connect]
    if credentials is None and not insecure:
        refuse_open([address.rpartition(":")[0] for address in (*connect, *([listen] if listen else ()))])
        if discover:
            expected = "certificates (--cert-dir, made by `planner certs`), or --insecure on a network you trust"
            raise ExecuteError("whoever answers would be connected to", where="--discover", expected=expected)
    configuration = _configuration(connects, credentials, discovery_group() if discover else None)
    limits = Limits.from_environment()

    def opener(on_frame: OnFrame, on_presence: OnPresence) -> Transport:
        faults = partial(_unreachable, tuple(connect), credentials)
        return ZenohTransport(name, listens, configuration, on_frame, on_presence, limits=limits, unreachable=faults)

    return opener


def _unreachable(addresses: Sequence[str], credentials: Credentials | None) -> dict[str, str]:
    return {address: fault for address in addresses if (fault := diagnose(address, credentials))}


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free port of an address of this device; 0 if it has no such address."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError:
        return 0


def _endpoint(protocol: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    bare = ":" not in host or (host.startswith("[") and host.endswith("]"))
    if not host or not bare or not (port.isascii() and port.isdigit() and int(port) < 2**16):
        expected = "HOST:PORT, such as 192.0.2.7:7447 or [2001:db8::7]:7447"
        raise ExecuteError("not an address", where="address", value=address, expected=expected)
    return f"{protocol}/{address}"


def discovery_group() -> str:
    """Return the multicast group by which members find each other: ``ADDRESS:PORT``.

    It is not that of other programs that use the library, which would be connected to otherwise.

    Raises
    ------
    ExecuteError
        If that in the environment is none.
    """
    text = os.environ.get(GROUP, _DEFAULT_GROUP)
    address, _, port = text.rpartition(":")
    try:
        if ipaddress.ip_address(address.strip("[]")).is_multicast and 0 < int(port) < 2**16:
            return text
    except ValueError:
        pass
    raise ExecuteError(
        "not a multicast group", where=GROUP, value=text, expected=f"ADDRESS:PORT, e.g. {_DEFAULT_GROUP}"
    )


def _configuration(
    connects: Sequence[str], credentials: Credentials | None, group: str | None = None
) -> dict[str, Any]:
    return {
        "mode": "peer",
        "connect/endpoints": list(connects),
        "connect/timeout_ms": -1,
        "connect/exit_on_failure": False,
        "connect/retry": {"period_init_ms": 200, "period_max_ms": 2000, "period_increase_factor": 2},
        # Without multicast there is no reason to wait half a second for discovered peers.
        "scouting/delay": 0,
        "scouting/multicast/enabled": group is not None,
        **({"scouting/multicast/address": group} if group is not None else {}),
        # On one machine that emulates a network, shared memory would make links unlike any real ones.
        "transport/shared_memory/enabled": False,
        "transport/unicast/max_links": 1,
        "transport/link/tx/lease": _LEASE_MS,
        "transport/link/tx/queue/size": dict.fromkeys(_LEVELS, _QUEUED_BATCHES),
        # A blocked link blocks all others for this time.
        "transport/link/tx/queue/congestion_control/block/wait_before_close": _BLOCKED_US,
        "transport/link/tx/queue/congestion_control/drop/wait_before_drop": _DROPPED_US,
        "transport/link/rx/max_message_size": MAX_HEADER_BYTES + 2 * MAX_PIECE_BYTES,
        **(credentials.settings() if credentials is not None else {}),
    }


class ZenohTransport:
    """A member's Zenoh session; see :func:`zenoh_connect`."""

    def __init__(
        self,
        name: str,
        listens: str,
        configuration: Mapping[str, Any],
        on_frame: OnFrame,
        on_presence: OnPresence,
        *,
        limits: Limits,
        unreachable: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._name = name
        self.unreachable = unreachable
        """See :meth:`planner.execution.wire.transport.Transport.unreachable`."""
        self._receiver = Receiver(name, on_frame, limits)
        self._session, address = _open(name, listens, configuration)
        process = process_of(str(self._session.info.zid()))
        label = Whereabouts.here(address).label
        self._own = f"{name}/{process}"
        self._roster = Roster((name, process), on_presence, limits.members)
        presence = surviving(self._presence)
        try:
            self._session.declare_subscriber(inbox(self._own, "*/*"), surviving(self._receive))
            self._token = self._session.liveliness().declare_token(alive(self._own, label))
            self._session.liveliness().declare_subscriber(alive("*/*"), presence, history=True)
        except BaseException as error:
            self.close()
            if isinstance(error, zenoh.ZError):
                raise ExecuteError(f"cannot join the network: {error}", where=name) from error
            raise

    def _receive(self, sample: zenoh.Sample) -> None:
        sender, process = _member(sample)
        attachment = sample.attachment.to_bytes() if sample.attachment is not None else b""
        answer = self._receiver.receive(sender, attachment, sample.payload.to_bytes(), process)
        if answer is not None:
            try:
                self.send_fragment(f"{sender}/{process}", answer, CONTROL)
            except ExecuteError:  # the session may be closing; the sender's lane times out
                _LOG.debug("%s: an acknowledgement is lost", self._name, exc_info=True)

    def _presence(self, sample: zenoh.Sample) -> None:
        member, process, label = str(sample.key_expr).rsplit("/", 3)[1:]
        if sample.kind == zenoh.SampleKind.PUT:
            self._roster.add(member, process, Whereabouts.from_label(label))
        else:
            self._receiver.forget(member, process)
            self._roster.remove(member, process)

    def send(self, to: str, frame: Frame, level: int) -> None:
        """Send a frame; blocks while the link's queue is full."""
        for fragment in split(*encode(frame)):
            self.send_fragment(to, fragment, level)

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        """Send a fragment of a frame; blocks while the link's queue is full.

        Raises
        ------
        ExecuteError
            The library refused it.
        """
        if "/" not in to:
            to = f"{to}/{self._roster.first(to) or '*'}"
        try:
            self._session.put(
                inbox(to, self._own),
                bytes(fragment.payload),  # the library takes no views
                attachment=fragment.attachment,
                priority=_PRIORITIES[level - 1],
                # The receiving thread sends acknowledgements, and must not wait for a silent link.
                congestion_control=(
                    zenoh.CongestionControl.DROP if fragment.acknowledges else zenoh.CongestionControl.BLOCK
                ),
                express=True,
            )
        except zenoh.ZError as error:
            raise ExecuteError(f"cannot be sent: {error}", where=f"message to {to.partition('/')[0]}") from error

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        """Register a callback, called in any thread with each acknowledgement."""
        self._receiver.on_acknowledged = call

    def limit(self, size_bytes: int) -> None:
        """Refuse larger messages from now on."""
        self._receiver.limit(size_bytes)

    def query_presence(self) -> None:
        """Query the present members: each is reported again, as when it joins."""

        @surviving
        def answer(reply: zenoh.Reply) -> None:
            if reply.ok is not None:
                self._presence(reply.ok)

        try:
            self._session.liveliness().get(alive("*/*"), answer, timeout=PRESENCE_PERIOD_S)
        except zenoh.ZError as error:
            raise ExecuteError(f"cannot query the present members: {error}", where=self._name) from error

    def processes(self, member: str) -> dict[str, Whereabouts]:
        """Return the other agents of a name, first the one that messages go to, each with where it runs."""
        links = {str(link.zid): link.dst.partition("/")[2].partition("?")[0] for link in self._session.info.links()}
        return {
            process: known.seen(links.get(identifier_of(process), ""))
            for process, known in self._roster.processes(member).items()
        }

    def shared_names(self) -> frozenset[str]:
        """Return the names that several agents have."""
        return self._roster.shared_names()

    def unlike(self) -> dict[str, int]:
        """Return the present members that speak another version of the wire format, with that version."""
        return self._roster.unlike()

    def close(self) -> None:
        """Leave the network; a process that ends without this may hang."""
        self._session.close()  # type: ignore[no-untyped-call]  # the library's stub leaves it untyped


def _open(name: str, listens: str, configuration: Mapping[str, Any]) -> tuple[zenoh.Session, str]:
    """Open a session; return it with the address that it listens on.

    The library does not tell which port it takes for port 0. A free one is therefore chosen here, and another one if a
    different process was faster.
    """
    protocol, _, address = listens.partition("/")
    host, _, port = address.rpartition(":")
    for left in reversed(range(_PORTS if int(port) == 0 else 1)):
        chosen = address if int(port) else f"{host}:{free_port(host)}"
        config = zenoh.Config()
        for key, value in {"listen/endpoints": [f"{protocol}/{chosen}"], **configuration}.items():
            config.insert_json5(key, json.dumps(value))
        try:
            return zenoh.open(config), chosen
        except zenoh.ZError as error:
            if not left:
                raise ExecuteError(f"cannot open the transport: {error}", where=name, value=listens) from error
    raise AssertionError


def _member(sample: zenoh.Sample) -> tuple[str, str]:
    """Return name and process of the member at the end of a key."""
    name, process = str(sample.key_expr).rsplit("/", 2)[1:]
    return name, process
