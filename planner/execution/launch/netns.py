"""A scenario's network built from Linux network namespaces: real sockets on links of limited bandwidth.

Each worker is a namespace with one address. Each network is a bridge in another namespace, the hub. A point-to-point
link is limited in the sender's namespace; the members of a shared medium send through one queue in the hub, since they
share its airtime. Another bridge, without a limit, joins the workers with this host and its coordinator, so that
deployment and reports do not load the scenario's network. Workers reach each other only if a network joins them
directly; on longer paths, the workers in between forward.

Token buckets (``tc tbf``) limit the bandwidth including headers and acknowledgements: a stream of data gets about
47 of 50 Mbit/s. Latency is not emulated, because some kernels lack support for it; a local bridge adds about 0.1 ms.
Requires root and ``iproute2``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from planner.errors import ExecuteError
from planner.scenario.instance import Instance

_PREFIX: Final = "planner"
_COUNT: Final = itertools.count()

_BURST_BYTES: Final = 16 * 1024
"""Bytes that may pass at once. With fewer, high rates are not reached; with more, a transfer exceeds its rate."""

_QUEUE_S: Final = 0.05
"""Length of a link's queue, as the time to send it; a sender without congestion signals fills it."""

_QUEUE_BYTES: Final = 128 * 1024
"""Minimum length of a queue, which must accept what a socket sends at once."""


@dataclass(frozen=True)
class NamespaceLayout:
    """Addresses and names of a network of namespaces."""

    coordinator: str
    """Address of this host, which all workers can reach."""
    addresses: Mapping[str, str]
    """Address of each worker, on which its agent listens."""
    namespaces: Mapping[str, str]
    """Namespace of each worker."""
    hub: str
    """Namespace of the networks."""
    ports: Mapping[str, Sequence[str]]
    """Devices in the hub that are joined to each worker, the one for the coordinator first."""

    def command(self, worker: str) -> list[str]:
        """Return the words to put before a command to run it in a worker's namespace."""
        return ["ip", "netns", "exec", self.namespaces[worker]]


def unavailable() -> str | None:
    """Return why this machine does not support network namespaces, or None if it does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} (iproute2) not found" if missing else None


@contextmanager
def network_namespaces(instance: Instance) -> Iterator[NamespaceLayout]:
    """Build the scenario's network, and remove it at the end.

    Leftovers of killed runs are removed first. Typical use::

        with network_namespaces(instance) as layout:
            address = f"{layout.coordinator}:{port}"
            command = [*layout.command("nano-1"), "planner", "agent", "--listen", f"{layout.addresses['nano-1']}:7447"]

    Raises
    ------
    ExecuteError
        If this machine does not support namespaces; the message states the reason or the command that failed.
    """
    if reason := unavailable():
        raise ExecuteError(reason, where="network namespaces", expected="root, on Linux, with ip and tc")
    _remove_leftovers()
    builder = _Builder(instance)
    try:
        yield builder.build()
    finally:
        builder.remove()


class _Builder:
    """Creates the namespaces, and removes them."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        # Names are never reused, because a device's name stays in use for a moment after its namespace is deleted.
        self._mark = f"{os.getpid()}-{next(_COUNT)}"
        self._name = f"{_PREFIX}-{self._mark}"
        self._hub = f"{self._name}-hub"
        self._workers = {worker: f"{self._name}-w{index}" for index, worker in enumerate(instance.workers)}
        self._ports: dict[str, list[str]] = {worker: [] for worker in instance.workers}
        self._devices = itertools.count()

    def build(self) -> NamespaceLayout:
        for namespace in (self._hub, *self._workers.values()):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        addresses = {worker: f"10.213.{index // 250}.{index % 250 + 1}" for index, worker in enumerate(self._workers)}
        for worker, address in addresses.items():
            _ip("-n", self._workers[worker], "address", "add", f"{address}/32", "dev", "lo")
        coordinator = self._join_with_host(addresses)
        device_of = self._lay_networks()
        for sender, receivers in self._instance.paths.items():
            for receiver, path in receivers.items():
                if len(path.hops) == 1:
                    route = (f"{addresses[receiver]}/32", "dev", device_of[sender, path.hops[0].resource])
                    _ip("-n", self._workers[sender], "route", "add", *route, "src", addresses[sender])
        return NamespaceLayout(coordinator, addresses, self._workers, self._hub, self._ports)

    def remove(self) -> None:
        # All cables and bridges end in the hub and are deleted with it.
        for namespace in (self._hub, *self._workers.values()):
            _remove(namespace)

    def _join_with_host(self, addresses: Mapping[str, str]) -> str:
        """Join all workers with this host, and return this host's address."""
        subnet = _free_subnet()
        self._bridge("control")
        device = f"pl{self._mark}"
        _ip("link", "add", device, "type", "veth", "peer", "name", "host", "netns", self._hub)
        _ip("-n", self._hub, "link", "set", "host", "master", "control", "up")
        _ip("address", "add", f"{subnet}.0.1/16", "dev", device)
        _ip("link", "set", device, "up")
        for index, worker in enumerate(addresses):
            inner = self._plug(worker, "control")
            address = f"{subnet}.{index // 250 + 1}.{index % 250 + 1}/16"
            _ip("-n", self._workers[worker], "address", "add", address, "dev", inner)
        return f"{subnet}.0.1"

    def _lay_networks(self) -> dict[tuple[str, str], str]:
        """Create the bridges of all networks, and return the device with which each worker sends on each resource."""
        devices: dict[tuple[str, str], str] = {}
        for index, (name, network) in enumerate(self._instance.scenario.networks.items()):
            crossings = 2 if network.relay == "access-point" else 1
            rate = network.bandwidth_bytes_per_s / crossings
            if network.kind == "shared":
                bridge, medium = f"b{index}", f"m{index}"
                self._bridge(bridge)
                self._medium(medium, rate)
                for worker in network.members:
                    devices[worker, name] = self._plug(worker, bridge)
                    self._redirect(self._ports[worker][-1], medium)
            for number, (a, b) in enumerate(network.links):
                bridge = f"b{index}-{number}"
                self._bridge(bridge)
                for sender, receiver in ((a, b), (b, a)):
                    device = devices[sender, f"{name}:{sender}>{receiver}"] = self._plug(sender, bridge)
                    _limit(self._workers[sender], device, rate)
        return devices

    def _bridge(self, name: str) -> None:
        _ip("-n", self._hub, "link", "add", name, "type", "bridge")
        _ip("-n", self._hub, "link", "set", name, "up")

    def _plug(self, worker: str, bridge: str) -> str:
        """Join a worker to a bridge with a cable, and return the worker's end."""
        number = next(self._devices)
        inner, port = f"e{number}", f"p{number}"
        namespace = self._workers[worker]
        _ip("-n", self._hub, "link", "add", port, "type", "veth", "peer", "name", inner, "netns", namespace)
        _ip("-n", self._hub, "link", "set", port, "master", bridge, "up")
        _ip("-n", namespace, "link", "set", inner, "up")
        self._ports[worker].append(port)
        return inner

    def _medium(self, name: str, bytes_per_s: float) -> None:
        """Create the queue through which all members of a shared medium send."""
        _ip("-n", self._hub, "link", "add", name, "type", "ifb")
        _ip("-n", self._hub, "link", "set", name, "up")
        _limit(self._hub, name, bytes_per_s)

    def _redirect(self, port: str, medium: str) -> None:
        _run("tc", "-n", self._hub, "qdisc", "add", "dev", port, "handle", "ffff:", "ingress")
        match = ("protocol", "all", "u32", "match", "u32", "0", "0")
        action = ("action", "mirred", "egress", "redirect", "dev", medium)
        _run("tc", "-n", self._hub, "filter", "add", "dev", port, "parent", "ffff:", *match, *action)


def _limit(namespace: str, device: str, bytes_per_s: float) -> None:
    limit = max(int(bytes_per_s * _QUEUE_S), _QUEUE_BYTES)
    bucket = ("rate", f"{round(bytes_per_s * 8)}bit", "burst", str(_BURST_BYTES), "limit", str(limit))
    _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *bucket)


def _free_subnet() -> str:
    """Return the first two numbers of an address range that this host does not use."""
    used = _ip("-4", "address", "show") + _ip("-4", "route", "show")
    for offset in range(40):
        # Processes that start at the same time begin at different numbers.
        number = 214 + (os.getpid() + offset) % 40
        if f" 10.{number}." not in used:
            return f"10.{number}"
    raise ExecuteError("no free address range", where="network namespaces", expected="one of 10.214.* to 10.253.*")


def _remove_leftovers() -> None:
    """Remove the namespaces of processes that have ended."""
    for line in _ip("netns", "list").splitlines():
        match = re.match(rf"{_PREFIX}-(\d+)-\d+-(hub|w\d+)\b", line)
        if match and not Path(f"/proc/{match[1]}").exists():
            _remove(match[0])


def _remove(namespace: str) -> None:
    with contextlib.suppress(ExecuteError):
        _ip("netns", "delete", namespace)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*words: str) -> str:
    finished = subprocess.run(words, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ExecuteError(finished.stderr.strip() or "failed", where="network namespaces", value=" ".join(words))
    return finished.stdout
