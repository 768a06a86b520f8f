"""Agents that announce themselves are found without an address, and only by members with the same certificates."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from planner.errors import ExecuteError
from planner.execution.wire.certificates import make_certificates
from planner.execution.wire.zenoh import GROUP, discovery_group, free_port, zenoh_connect
from tests.cli.command import planner
from tests.execution.raw import agent_process


@pytest.fixture
def own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the members of this test find only each other; skip where the system has no multicast."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.sendto(b"", ("224.0.0.224", port))
        except OSError as error:
            pytest.skip(f"this system has no interface for multicast: {error}")
    monkeypatch.setenv(GROUP, f"224.0.0.224:{port}")


@pytest.mark.usefixtures("own_group")
def test_agents_are_found_without_an_address_by_those_whose_certificates_fit(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("ours", "theirs")]
    for folder in folders:
        make_certificates(folder, ["a", "b"], life=timedelta(days=2))
    ours, theirs = folders
    cache = ("--cache", str(tmp_path / "cache"))
    with (
        agent_process("a", "--discover", "--cert-dir", str(ours / "a"), *cache),
        agent_process("b", "--discover", "--cert-dir", str(ours / "b"), *cache),
    ):
        found = planner(
            "status", "a", "b", "--discover", "--cert-dir", ours / "_coordinator", "--wait", "30 s", "--json"
        )
        assert found.returncode == 0, found.stderr
        assert set(json.loads(found.stdout)["agents"]) == {"a", "b"}
        refused = planner("status", "a", "--discover", "--cert-dir", theirs / "_coordinator", "--wait", "3 s")
        assert refused.returncode == 2
        silent = planner("status", "a", "--listen", "127.0.0.1:0", "--cert-dir", ours / "_coordinator", "--wait", "2 s")
        assert silent.returncode == 2  # off by default


def test_nobody_is_discovered_without_certificates_by_mistake() -> None:
    with pytest.raises(ExecuteError, match="--discover: whoever answers would be connected to; expected certificates"):
        zenoh_connect("a", listen=None, connect=[], discover=True)


@pytest.mark.parametrize("group", ["224.0.0.224", "10.0.0.1:7448", "224.0.0.224:0", "x:1", ""])
def test_a_group_that_is_none_is_refused(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROUP, group)
    with pytest.raises(ExecuteError, match=f"{GROUP}: not a multicast group"):
        discovery_group()
