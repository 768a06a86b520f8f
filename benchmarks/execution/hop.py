"""Cost of a hop between two agents: the agents' overhead, and the total relative to a bare Zenoh publisher."""

from __future__ import annotations

import json
import queue
import statistics
import subprocess
import sys
import threading
import time
from typing import Any, Final

import numpy as np
import zenoh

from planner.execution.wire.checks import check_fits
from planner.execution.wire.fragments import Fragment
from planner.execution.wire.frames import Frame
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.messages import COORDINATOR, Data, Deploy, Stop
from planner.execution.wire.transport import OnAcknowledged, Receiver
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.model.chain import TensorSpec
from planner.policy.types import SampleKey, Task
from planner.worker.events import TaskMessage
from tests.execution.rig import SPLIT, small_deployment, small_instance

_ROUNDS: Final = 200
_WARM: Final = 40
_SIZES: Final = (1_000, 100_000, 1_000_000, 3_200_000)
_BARE: Final = "bare"


def _data(size_bytes: int) -> Frame:
    tensor = np.random.default_rng(0).random(size_bytes // 4, np.float32)
    stages = SPLIT.sources["urgent"].routes[0].stages
    task = Task(SampleKey("urgent", 1, 0), "small", 0, 8.0, 0.0, 1, stages)
    message = TaskMessage(task)
    body = Data(run="r", sender=COORDINATOR, message=message, cut=1, size_bytes=tensor.nbytes, sent_s=time.monotonic())
    return Frame(body, {"t1": tensor})


class _Null:
    """A transport that passes everything to a receiver in the same process at once."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._acknowledged: OnAcknowledged = lambda _fragment: None

    def send(self, to: str, frame: Frame, level: int) -> None:
        raise NotImplementedError

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:  # noqa: ARG002 - one receiver
        answer = self._receiver.receive("a", fragment.attachment, bytes(fragment.payload))
        if answer is not None:
            self._acknowledged(answer)

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        self._acknowledged = call

    def limit(self, size_bytes: int) -> None:
        self._receiver.limit(size_bytes)

    def close(self) -> None:
        pass


def measure_overhead() -> None:
    """Measure encode, queue, fragment, receive, assemble, decode, check and hand over of 1 MB, without a network."""
    instance = small_instance()
    deployment = small_deployment(instance, SPLIT)
    frame = _data(1_000_000)
    spec = TensorSpec("t1", "float32", frame.tensors["t1"].shape)
    model = deployment.models["small"].model_copy(update={"cuts": ((spec,),) * 4})
    deploy = Deploy(
        run="r", instance=instance, plan=SPLIT, policy="planned", seed=0, models={"small": model}, resident={},
        paced=False,
    )  # fmt: skip
    inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    receiver = Receiver("b", inbox.put)
    receiver.limit(2_000_000)
    sender = Lanes(_Null(receiver))
    body = frame.body.model_copy(update={"sender": "a"})
    times = []
    for _ in range(_ROUNDS):
        start_s = time.perf_counter()
        sender.send("b", Frame(body, frame.tensors), 3)
        came = inbox.get(timeout=5)
        check_fits(deploy, came)
        times.append(time.perf_counter() - start_s)
    sender.close()
    median_ms = statistics.median(times[_WARM:]) * 1e3
    print(f"agent overhead per hop at 1 MB: {median_ms:.3f} ms (goal <= 0.3 ms)")


def _bare_session(listen: list[str], connect: list[str]) -> zenoh.Session:
    config = zenoh.Config()
    settings: dict[str, Any] = {
        "mode": "peer",
        "listen/endpoints": listen,
        "connect/endpoints": connect,
        "scouting/multicast/enabled": False,
        "transport/shared_memory/enabled": False,
    }
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def _receive(ours: str, bare: str) -> None:
    """Receive at the other end, and print the delay of each message by the host's monotonic clock."""
    over = threading.Event()

    def take(frame: Frame) -> None:
        now_s = time.monotonic()
        if isinstance(frame.body, Stop):
            over.set()
        elif isinstance(frame.body, Data):
            print(json.dumps(["ours", frame.body.size_bytes, now_s - frame.body.sent_s]))

    def take_bare(sample: zenoh.Sample) -> None:
        now_s, size = time.monotonic(), len(sample.payload.to_bytes())
        if sample.attachment is not None:
            print(json.dumps([_BARE, size, now_s - float(sample.attachment.to_string())]))

    transport = zenoh_connect("b", listen=None, connect=[ours])(take, lambda _member, _present: None)
    transport.limit(max(_SIZES))
    session = _bare_session([], [f"tcp/{bare}"])
    session.declare_subscriber(_BARE, take_bare)
    over.wait(120)
    sys.stdout.flush()
    transport.close()
    session.close()  # type: ignore[no-untyped-call]  # the library's stub leaves it untyped


def measure_hop() -> None:
    """Measure the one-way delay from the sender's call to the receiver's, ours and bare in turns."""
    ours, bare = (f"127.0.0.1:{free_port()}" for _ in range(2))
    there = threading.Event()
    transport = zenoh_connect(COORDINATOR, listen=ours, connect=[])(
        lambda _frame: None, lambda _member, _present: there.set()
    )
    session = _bare_session([f"tcp/{bare}"], [])
    publisher = session.declare_publisher(_BARE, congestion_control=zenoh.CongestionControl.BLOCK, express=True)
    sender = Lanes(transport)
    command = [sys.executable, "-m", "benchmarks.execution.hop", ours, bare]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        there.wait(30)
        while not publisher.matching_status:
            time.sleep(0.05)
        time.sleep(0.5)
        for size_bytes in _SIZES:
            raw = bytes(size_bytes)
            frame = _data(size_bytes)
            for _ in range(_ROUNDS):
                body = frame.body.model_copy(update={"sent_s": time.monotonic()})
                sender.send("b", Frame(body, frame.tensors), 3)
                time.sleep(0.004 + 4e-9 * size_bytes)
                publisher.put(raw, attachment=str(time.monotonic()))
                time.sleep(0.004 + 4e-9 * size_bytes)
        sender.send("b", Frame(Stop(run="r")), 7)
        printed = child.communicate(timeout=60)[0]
    sender.close()
    transport.close()
    session.close()  # type: ignore[no-untyped-call]
    delays_s: dict[tuple[str, int], list[float]] = {}
    for line in printed.splitlines():
        which, size_bytes, delay_s = json.loads(line)
        delays_s.setdefault((which, size_bytes), []).append(delay_s)
    for size_bytes in _SIZES:
        ours_s, bare_s = (statistics.median(delays_s[which, size_bytes][_WARM:]) for which in ("ours", _BARE))
        goal = " (goal <= 1.5)" if size_bytes == 1_000_000 else ""
        print(
            f"hop of {size_bytes:>9,} B: {ours_s * 1e3:.3f} ms, bare {bare_s * 1e3:.3f} ms, "
            f"ratio {ours_s / bare_s:.2f}{goal}"
        )


if __name__ == "__main__":
    _receive(*sys.argv[1:])
