"""What workers send each other in a simulated run: sizes, records, and when it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.errors import UsageError
from planner.policy.types import RUN_STRIDE
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec
from planner.simulation.device import Device
from planner.simulation.event_heap import EventHeap
from planner.simulation.network import Leg, NetworkModel, legs
from planner.simulation.sequences import Sequences
from planner.trace.records import Record, TransferRecord
from planner.worker.events import FailureMessage, Parcel, Received, Send, StateMessage, TaskMessage


@dataclass(slots=True)
class _Shipment:
    """A message with its tensors, on its way; ``sample`` is that of its records."""

    sender: str
    receiver: str
    message: Parcel
    source: str
    sample: int
    cut: int
    size_bytes: int
    device: Device
    """The sender's, which may not compute meanwhile."""


class Transfers:
    """Carries out what workers ask to be sent.

    Parameters
    ----------
    devices
        Those of the workers at the moment, by name.
    hand
        Called with the name of a receiver, and with what it receives.
    sink
        Called with each record as it occurs.
    """

    def __init__(
        self,
        instance: Instance,
        heap: EventHeap,
        devices: Mapping[str, Device],
        sequences: Sequences,
        *,
        hand: Callable[[str, Received], None],
        sink: Callable[[Record], None],
    ) -> None:
        self._instance, self._heap, self._devices, self._sequences = instance, heap, devices, sequences
        self._hand, self._sink = hand, sink
        self._generating = sequences.sources
        self._network = NetworkModel(heap, instance.resources, self._deliver, self._occupied)
        self._paths = {
            (sender, receiver): legs(path)
            for sender, paths in instance.paths.items()
            for receiver, path in paths.items()
        }
        self.delivered = 0
        """Number of transfers whose end is certain."""

    def send(self, name: str, send: Send) -> None:
        """Send what a worker asks for.

        Raises
        ------
        UsageError
            No network joins it with the receiver.
        """
        path = self._paths.get((name, send.to))
        if path is None:
            raise UsageError("no network joins two workers that exchange data", where=f"{name} and {send.to}")
        message, device = send.message, self._devices[name]
        key = message.key
        source, sample, size_bytes = key.source, key.sample % RUN_STRIDE, send.size_bytes
        if source in self._generating:
            size_bytes = self._size_bytes(name, send)
        if not device.overlap:
            device.sending()
        shipment = _Shipment(name, send.to, message, source, sample, send.cut, size_bytes, device)
        self._network.submit(path, size_bytes, send.priority, shipment)

    def _deliver(self, shipment: _Shipment, at_s: float) -> None:
        self.delivered += 1
        message = shipment.message
        if shipment.size_bytes and isinstance(message, StateMessage):
            self._sequences.take_state(message, shipment.receiver)
        self._heap.at(at_s, self._hand, shipment.receiver, Received(shipment.sender, message))

    def _occupied(self, shipment: _Shipment, hop: Leg, start_s: float, end_s: float) -> None:
        sender, source, sample, cut = hop.sender, shipment.source, shipment.sample, shipment.cut
        size_bytes = shipment.size_bytes
        self._sink(TransferRecord(hop.resource, sender, hop.receiver, source, sample, cut, size_bytes, start_s, end_s))
        if not shipment.device.overlap and sender == shipment.sender:
            self._heap.at(end_s, shipment.device.sent)

    def _size_bytes(self, sender: str, send: Send) -> int:
        """Return what a transfer of a run of a sequence carries; it has other sizes than the profile's."""
        message = send.message
        if isinstance(message, StateMessage):
            return self._sequences.give_state(message, sender)
        if isinstance(message, FailureMessage):
            return send.size_bytes
        model = (
            message.task.model if isinstance(message, TaskMessage) else message.origin.model if message.origin else ""
        )
        found = self._sequences.size_bytes(model, message.key.source, message.key.sample, send.cut) if model else None
        return send.size_bytes if found is None else found

    def disturb(self, network: str, event: EventSpec) -> None:
        """Let an event of the scenario change what a network carries."""
        spec = self._instance.scenario.networks[network]
        factors = {"leave": 0.0, "join": 1.0, "recover": 1.0, "slow": 1 / (event.factor or 1.0)}
        if event.bandwidth_bytes_per_s is not None:
            factors["bandwidth"] = event.bandwidth_bytes_per_s / spec.bandwidth_bytes_per_s
        resources = [resource for resource in self._instance.resources if resource.partition(":")[0] == network]
        self._network.change_rate(resources, factors[event.action])

    def busy_s(self) -> dict[str, float]:
        """Return the time that each network resource has been sending, in seconds."""
        return self._network.busy_s()
