"""A scenario's network as Linux network namespaces: real sockets through links that are held to their bandwidth.

Every worker is a namespace with one address. Each network is a bridge in one more namespace, the hub. What a worker
sends on a point-to-point link is held back in its own namespace; what the members of a shared medium send passes one
queue in the hub, since they share one airtime. A further bridge, not held back, joins the workers with this host, where
the coordinator is: deployment and reports do not use up the scenario's network. Workers reach each other only where a
network joins them directly; on longer ways a worker in between forwards.

Bandwidth is played by token buckets (``tc tbf``), headers and acknowledgements included: of 50 Mbit/s a stream of data
gets some 47. Latency is not: the kernels that this is used on do not all have what it takes, and a local bridge adds
some 0.1 ms of its own. Needs root and ``iproute2``.
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
"""What may pass at once; below it a bucket cannot hold high rates, above it one transfer would overtake the rate."""

_QUEUE_S: Final = 0.05
"""What may wait in a link's queue, as time; a sender that is not told to slow down fills it."""

_QUEUE_BYTES: Final = 128 * 1024
"""No queue is shorter: it must take what one socket hands over at once."""


@dataclass(frozen=True)
class NamespaceLayout:
    """Where to run what, while the namespaces are there."""

    coordinator: str
    """Address of this host that all workers reach."""
    addresses: Mapping[str, str]
    """Each worker's own address: its agent listens on it."""
    namespaces: Mapping[str, str]
    _ports: Mapping[str, Sequence[str]]
    _shapers: Mapping[str, tuple[str, str]]
    _hub: str

    def command(self, worker: str) -> list[str]:
        """Give what to put before a command so that it runs where the worker is."""
        return ["ip", "netns", "exec", self.namespaces[worker]]

    def cut(self, worker: str) -> None:
        """Pull all the worker's cables: it and the others see silence, not an end."""
        for port in self._ports[worker]:
            _ip("-n", self._hub, "link", "set", port, "down")

    def restore(self, worker: str) -> None:
        """Put the cables back."""
        for port in self._ports[worker]:
            _ip("-n", self._hub, "link", "set", port, "up")

    def set_bandwidth(self, resource: str, bytes_per_s: float) -> None:
        """Hold a shared medium, or a direction of a link, to another bandwidth from now on."""
        namespace, device = self._shapers[resource]
        _shape(namespace, device, bytes_per_s, "replace")


def unavailable() -> str | None:
    """Say why this machine cannot lay out network namespaces; None when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} (iproute2) not found" if missing else None


@contextmanager
def network_namespaces(instance: Instance) -> Iterator[NamespaceLayout]:
    """Lay out the scenario's network; all of it is gone afterwards.

    What killed runs have left is removed first. Typical use::

        with network_namespaces(instance) as layout:
            address = f"{layout.coordinator}:{port}"
            command = [*layout.command("nano-1"), "planner", "agent", "--listen", f"{layout.addresses['nano-1']}:7447"]

    Raises
    ------
    ExecuteError
        This machine cannot; the message says why, or which command failed.
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
    """Makes the namespaces one after the other, and remembers what to remove."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        # A device's name is in use for a moment after its namespace has gone, so none is used twice.
        self._mark = f"{os.getpid()}-{next(_COUNT)}"
        self._name = f"{_PREFIX}-{self._mark}"
        self._hub = f"{self._name}-hub"
        self._workers = {worker: f"{self._name}-w{index}" for index, worker in enumerate(instance.workers)}
        self._ports: dict[str, list[str]] = {worker: [] for worker in instance.workers}
        self._shapers: dict[str, tuple[str, str]] = {}
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
        return NamespaceLayout(coordinator, addresses, self._workers, self._ports, self._shapers, self._hub)

    def remove(self) -> None:
        # All cables and bridges end in the hub and go with it.
        for namespace in (self._hub, *self._workers.values()):
            _remove(namespace)

    def _join_with_host(self, addresses: Mapping[str, str]) -> str:
        """Join all workers with this host; give this host's address."""
        subnet = _free_subnet()
        self._bridge("control")
        device = f"pl{self._mark}"
        _ip("link", "add", device, "type", "veth", "peer", "name", "host", "netns", self._hub)
        _ip("-n", self._hub, "link", "set", "host", "master", "control", "up")
        _ip("address", "add", f"{subnet}.0.1/16", "dev", device)
        _ip("link", "set", device, "up")
        for index, worker in enumerate(addresses):
            inner = self._plug(worker, "control")
            own = f"{subnet}.{index // 250 + 1}.{index % 250 + 1}/16"
            _ip("-n", self._workers[worker], "address", "add", own, "dev", inner)
        return f"{subnet}.0.1"

    def _lay_networks(self) -> dict[tuple[str, str], str]:
        """Make a bridge of each network; give the device by which each worker sends on each resource."""
        devices: dict[tuple[str, str], str] = {}
        for index, (name, network) in enumerate(self._instance.scenario.networks.items()):
            crossings = 2 if network.relay == "access-point" else 1
            rate = network.bandwidth_bytes_per_s / crossings
            if network.kind == "shared":
                bridge, medium = f"b{index}", f"m{index}"
                self._bridge(bridge)
                self._medium(medium, rate)
                self._shapers[name] = (self._hub, medium)
                for worker in network.members:
                    devices[worker, name] = self._plug(worker, bridge)
                    self._redirect(self._ports[worker][-1], medium)
            for place, (a, b) in enumerate(network.links):
                bridge = f"b{index}-{place}"
                self._bridge(bridge)
                for sender, receiver in ((a, b), (b, a)):
                    resource = f"{name}:{sender}>{receiver}"
                    devices[sender, resource] = self._plug(sender, bridge)
                    self._shapers[resource] = (self._workers[sender], devices[sender, resource])
                    _shape(*self._shapers[resource], rate, "add")
        return devices

    def _bridge(self, name: str) -> None:
        _ip("-n", self._hub, "link", "add", name, "type", "bridge")
        _ip("-n", self._hub, "link", "set", name, "up")

    def _plug(self, worker: str, bridge: str) -> str:
        """Run a cable from a worker to a bridge; give the worker's end."""
        number = next(self._devices)
        inner, port = f"e{number}", f"p{number}"
        namespace = self._workers[worker]
        _ip("-n", self._hub, "link", "add", port, "type", "veth", "peer", "name", inner, "netns", namespace)
        _ip("-n", self._hub, "link", "set", port, "master", bridge, "up")
        _ip("-n", namespace, "link", "set", inner, "up")
        self._ports[worker].append(port)
        return inner

    def _medium(self, name: str, bytes_per_s: float) -> None:
        """Make the queue that all members of a shared medium send through."""
        _ip("-n", self._hub, "link", "add", name, "type", "ifb")
        _ip("-n", self._hub, "link", "set", name, "up")
        _shape(self._hub, name, bytes_per_s, "add")

    def _redirect(self, port: str, medium: str) -> None:
        _run("tc", "-n", self._hub, "qdisc", "add", "dev", port, "handle", "ffff:", "ingress")
        match = ("protocol", "all", "u32", "match", "u32", "0", "0")
        action = ("action", "mirred", "egress", "redirect", "dev", medium)
        _run("tc", "-n", self._hub, "filter", "add", "dev", port, "parent", "ffff:", *match, *action)


def _shape(namespace: str, device: str, bytes_per_s: float, verb: str) -> None:
    limit = max(int(bytes_per_s * _QUEUE_S), _QUEUE_BYTES)
    bucket = ("rate", f"{round(bytes_per_s * 8)}bit", "burst", str(_BURST_BYTES), "limit", str(limit))
    _run("tc", "-n", namespace, "qdisc", verb, "dev", device, "root", "tbf", *bucket)


def _free_subnet() -> str:
    """Give the first two numbers of a range of addresses that this host does not use."""
    used = _ip("-4", "address", "show") + _ip("-4", "route", "show")
    for place in range(40):
        # Two that start at the same time begin at different numbers.
        number = 214 + (os.getpid() + place) % 40
        if f" 10.{number}." not in used:
            return f"10.{number}"
    raise ExecuteError("no free range of addresses", where="network namespaces", expected="one of 10.214.* to 10.253.*")


def _remove_leftovers() -> None:
    """Remove the namespaces of processes that are gone."""
    for line in _ip("netns", "list").splitlines():
        found = re.match(rf"{_PREFIX}-(\d+)-\d+-(hub|w\d+)\b", line)
        if found and not Path(f"/proc/{found[1]}").exists():
            _remove(found[0])


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
