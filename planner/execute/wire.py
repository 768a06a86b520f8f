"""The transport over Eclipse Zenoh.

Members are peers that find each other by gossip from the coordinator's address. Between each two of them run two links,
split by priority, so that control messages and the most urgent class do not queue behind bulk data in one socket's
buffer. Each member declares a liveliness token, by which the others see it come and go.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Sequence
from typing import Final

import zenoh

from planner.errors import ExecuteError
from planner.execute.messages import Frame, decode, encode
from planner.execute.transport import Connect, OnFrame, OnPresence, Transport

_LOG = logging.getLogger(__name__)

_ROOT: Final = "planner/v1"
_ALIVE: Final = f"{_ROOT}/alive"

_LEASE_MS: Final = 1000
"""A silent link counts as broken after this."""

_LEVELS: Final = (
    zenoh.Priority.REAL_TIME,
    zenoh.Priority.INTERACTIVE_HIGH,
    zenoh.Priority.INTERACTIVE_LOW,
    zenoh.Priority.DATA_HIGH,
    zenoh.Priority.DATA,
    zenoh.Priority.DATA_LOW,
    zenoh.Priority.BACKGROUND,
)


def zenoh_connect(name: str, *, listen: str | None, connect: Sequence[str]) -> Connect:
    """Give what opens the transport of member ``name``.

    Parameters
    ----------
    listen
        ``HOST:PORT``, which takes PORT and PORT + 1; free ports of the loopback interface when None.
    connect
        ``HOST:PORT`` of members to join; they may come later.

    Raises
    ------
    ExecuteError
        An address is malformed, or cannot be listened on (when opened).
    """
    listens = _links(listen) if listen else _links("127.0.0.1:0", step=0)
    connects = [link for address in connect for link in _links(address)]

    def opener(on_frame: OnFrame, on_presence: OnPresence) -> Transport:
        return ZenohTransport(name, listens, connects, on_frame, on_presence)

    return opener


def free_port_pair() -> int:
    """Give a port of the loopback interface that is free, and so is the next one."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
    raise ExecuteError("found no two free ports side by side on the loopback interface")


def _links(address: str, step: int = 1) -> list[str]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) + step > 65535:
        raise ExecuteError("not an address", where="address", value=address, expected="HOST:PORT, e.g. 192.0.2.7:7447")
    return [f"tcp/{host}:{port}?prio=0-3", f"tcp/{host}:{int(port) + step}?prio=4-7"]


def _configuration(listens: Sequence[str], connects: Sequence[str]) -> zenoh.Config:
    config = zenoh.Config()
    settings = {
        "mode": "peer",
        "listen/endpoints": list(listens),
        "connect/endpoints": list(connects),
        "connect/timeout_ms": -1,
        "connect/exit_on_failure": False,
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": True,
        # One machine may play a whole network; shared memory would make its links unlike any real one.
        "transport/shared_memory/enabled": False,
        "transport/unicast/max_links": 2,
        "transport/link/tx/lease": _LEASE_MS,
    }
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return config


class ZenohTransport:
    """A member's Zenoh session; see :func:`zenoh_connect`."""

    def __init__(
        self, name: str, listens: Sequence[str], connects: Sequence[str], on_frame: OnFrame, on_presence: OnPresence
    ) -> None:
        try:
            self._session = zenoh.open(_configuration(listens, connects))
        except zenoh.ZError as error:
            raise ExecuteError(f"cannot open the transport: {error}", where=name, value=", ".join(listens)) from error

        def receive(sample: zenoh.Sample) -> None:
            header = sample.attachment.to_bytes() if sample.attachment is not None else b""
            try:
                frame = decode(header, sample.payload.to_bytes())
            except ExecuteError as error:
                _LOG.warning("dropped a frame: %s", error)
            else:
                on_frame(frame)

        def presence(sample: zenoh.Sample) -> None:
            other = str(sample.key_expr).rpartition("/")[2]
            if other != name:
                on_presence(other, sample.kind == zenoh.SampleKind.PUT)

        try:
            self._session.declare_subscriber(f"{_ROOT}/to/{name}", receive)
            self._token = self._session.liveliness().declare_token(f"{_ALIVE}/{name}")
            self._session.liveliness().declare_subscriber(f"{_ALIVE}/*", presence, history=True)
        except BaseException:
            self.close()
            raise

    def send(self, to: str, frame: Frame, level: int) -> None:
        """Send a frame; blocks while the link's queue is full."""
        header, payload = encode(frame)
        self._session.put(
            f"{_ROOT}/to/{to}",
            payload,
            attachment=header,
            priority=_LEVELS[level - 1],
            congestion_control=zenoh.CongestionControl.BLOCK,
            express=True,
        )

    def close(self) -> None:
        """Leave. A process that ends without this may hang."""
        self._session.close()  # type: ignore[no-untyped-call]  # the library's stub leaves it untyped
