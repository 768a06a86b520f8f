"""Namespaces really hold bandwidth, join only what the scenario joins, and are gone afterwards."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from planner.errors import ExecuteError
from planner.execution.launch.netns import NamespaceLayout, network_namespaces, unavailable
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec
from tests.execution.cables import plug_in, pull
from tests.instances import make_instance

needs_root = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

_PROBE = """
import socket, sys
with socket.socket() as probe:
    probe.settimeout(1.0)
    try:
        probe.connect((sys.argv[1], 9))
    except ConnectionRefusedError:
        print("reached")
    except OSError:
        print("silent")
"""
_SERVE = """
import socket, sys, time
with socket.create_server((sys.argv[1], 5001)) as server:
    print("listening", flush=True)
    stream, _ = server.accept()
    while stream.recv(1 << 16):
        pass
    print(time.monotonic())
"""
_SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 5001)) as stream:
    print(time.monotonic())
    stream.sendall(bytes(int(sys.argv[2])))
"""


def mixed_instance() -> Instance:
    """Three on a shared medium, and a fourth that only the third has a link to."""
    return make_instance(
        workers=dict.fromkeys("abcd", 1.0),
        networks={
            "wifi": NetworkSpec(kind="shared", members=("a", "b", "c"), bandwidth_bytes_per_s=4e6),
            "line": NetworkSpec(kind="point-to-point", links=(("c", "d"),), bandwidth_bytes_per_s=2e6),
        },
    )


def run_in(layout: NamespaceLayout, worker: str, code: str, *words: str) -> str:
    command = [*layout.command(worker), sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def bytes_per_s(layout: NamespaceLayout, *pairs: tuple[str, str], size: int = 1_000_000) -> float:
    """Send over all pairs at once; give what went a second, from the first sender's start to the last receiver's end.

    Namespaces share one clock, and who waits for a processor only makes the time longer.
    """
    servers = []
    for _, to in pairs:
        command = [*layout.command(to), sys.executable, "-c", _SERVE, layout.addresses[to]]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert servers[-1].stdout is not None
        assert servers[-1].stdout.readline() == "listening\n"
    senders = [
        subprocess.Popen(
            [*layout.command(a), sys.executable, "-c", _SEND, layout.addresses[b], str(size)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for a, b in pairs
    ]
    start_s = min(float(sender.communicate(timeout=60)[0]) for sender in senders)
    return len(pairs) * size / (max(float(server.communicate(timeout=60)[0]) for server in servers) - start_s)


def namespaces(*words: str) -> list[str]:
    """Run ``ip netns`` with these words; without any, give the names of all namespaces."""
    command = [str(shutil.which("ip")), "netns", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@needs_root
def test_bandwidth_is_held_and_only_neighbours_meet() -> None:
    with network_namespaces(mixed_instance()) as layout:
        # A queue at the start lets a little more through; a busy machine only makes it less.
        assert bytes_per_s(layout, ("c", "d")) < 2e6 * 1.1
        assert bytes_per_s(layout, ("a", "b"), ("b", "c")) < 4e6 * 1.15
        assert run_in(layout, "b", _PROBE, layout.addresses["c"]) == "reached"
        assert run_in(layout, "b", _PROBE, layout.addresses["d"]) == "silent"
        assert run_in(layout, "d", _PROBE, layout.coordinator) == "reached"
        pull(layout, "a")
        assert run_in(layout, "b", _PROBE, layout.addresses["a"]) == "silent"
        plug_in(layout, "a")
        assert run_in(layout, "b", _PROBE, layout.addresses["a"]) == "reached"
    assert set(layout.namespaces.values()).isdisjoint(namespaces())


@needs_root
def test_what_a_killed_run_left_is_removed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = f"planner-{gone.pid}-0-w0"
    namespaces("add", left)
    assert left in namespaces()
    with network_namespaces(make_instance()):
        assert left not in namespaces()


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ExecuteError, match="need root"), network_namespaces(make_instance()):
        pass
