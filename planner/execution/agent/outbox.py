"""How a worker's messages reach other workers: hop by hop, or over an emulated network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeAlias

from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import COORDINATOR, Admit, Data, Deploy, Transmit
from planner.execution.wire.transport import CONTROL, urgency_levels
from planner.worker.events import FailureMessage, Send, StateMessage, TaskMessage, Tell

SendFrame: TypeAlias = Callable[[str, Frame, int], None]
"""``send(to, frame, level)``: hands a frame to the transport without waiting for it."""


class Outbox:
    """Sends one worker's data in one run.

    Data goes to the next worker on the scenario's path, which forwards it. An emulated network plays all hops itself:
    each transfer is announced to it, and inbound data is held until it admits the transfer.
    """

    def __init__(self, name: str, deploy: Deploy, send: SendFrame) -> None:
        self._name = name
        self._deploy = deploy
        self._send = send
        self._levels = urgency_levels({name: s.priority for name, s in deploy.instance.scenario.sources.items()})
        self._transfers = count()
        self._held: dict[str, tuple[Data, Tensors]] = {}
        self._admitted: dict[str, float] = {}

    def level(self, source: str) -> int:
        """Return the level of urgency of a source's data."""
        return self._levels[self._deploy.instance.scenario.sources[source].priority]

    def send_note(self, tell: Tell, now_s: float) -> None:
        """Send a note."""
        note = Data(run=self._deploy.run, sender=self._name, message=tell.message, cut=0, size_bytes=0, sent_s=now_s)
        self._send_data(tell.to, note, {}, CONTROL)

    def send(self, send: Send, tensors: Tensors, now_s: float) -> None:
        """Send a message about a sample with its tensors."""
        size_bytes = send.size_bytes
        decode = self._deploy.instance.scenario.sources[send.message.key.source].decode
        if tensors and (decode is not None or isinstance(send.message, StateMessage)):
            size_bytes = sum(tensor.nbytes for tensor in tensors.values())  # workers know that of a typical run only
        transfer = f"{self._name}/{next(self._transfers)}" if self._deploy.emulated else None
        if transfer is not None:
            request = Transmit(
                run=self._deploy.run, transfer=transfer, sender=self._name, to=send.to, key=send.message.key,
                cut=send.cut, size_bytes=size_bytes, priority=send.priority, at_s=now_s,
            )  # fmt: skip
            self._send(COORDINATOR, Frame(request), CONTROL)
        data = Data(
            run=self._deploy.run, sender=self._name, message=send.message, cut=send.cut, size_bytes=size_bytes,
            sent_s=now_s, transfer=transfer,
        )  # fmt: skip
        self._send_data(send.to, data, tensors, self._levels[send.priority])

    def next_hop(self, to: str) -> str:
        """Return the neighbour to which data for a worker is sent."""
        path = None if self._deploy.emulated else self._deploy.instance.path(self._name, to)
        return path.hops[0].receiver if path is not None and path.hops else to

    def forward(self, data: Data, tensors: Tensors, now_s: float) -> None:
        """Send another worker's data to the next hop."""
        self._send_data(data.to, data.model_copy(update={"sent_s": now_s}), tensors, data.level)

    def report_unreachable(self, data: Data) -> None:
        """Report to the home of a task that the next hop cannot be reached; other data is dropped."""
        task = data.message
        if not isinstance(task, TaskMessage):
            return
        hop = self.next_hop(data.to)
        lost = FailureMessage(task.key, f"{self._name} does not reach {hop}", (self._name, hop))
        failure = data.model_copy(update={"sender": self._name, "message": lost, "size_bytes": 0})
        self._send_data(self._deploy.instance.home(task.key.source), failure, {}, data.level)

    def _send_data(self, to: str, data: Data, tensors: Tensors, level: int) -> None:
        hop = self.next_hop(to)
        if hop != to:
            data = data.model_copy(update={"to": to, "level": level})
        self._send(hop, Frame(data, tensors), level)

    # ---- emulated network -------------------------------------------------------------------------------------------

    def hold(self, transfer: str, data: Data, tensors: Tensors) -> float | None:
        """Return when the emulated network admits an inbound transfer; hold it and return None if still unknown."""
        if transfer not in self._admitted:
            self._held[transfer] = (data, tensors)
        return self._admitted.pop(transfer, None)

    def admit(self, admit: Admit) -> tuple[Data, Tensors] | None:
        """Note when a transfer is admitted; return its data if it is held."""
        if admit.transfer not in self._held:
            self._admitted[admit.transfer] = admit.at_s
        return self._held.pop(admit.transfer, None)
