"""Looking around among real agents: what they are, and what the network between them gives."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate, combinations, permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ExecuteError
from planner.execution.agent.link_probe import CHUNK_BYTES, settled
from planner.execution.launch.netns import network_namespaces, unavailable
from planner.execution.probe.networks import networks_yaml
from planner.execution.probe.survey import Direction, Inquirer, Medium, Survey, _media, survey
from planner.execution.wire.claims import this_process
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import COORDINATOR, Taken
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.report.links import draw_links
from planner.scenario.load import load_scenario
from planner.scenario.types import NetworkSpec
from tests.cli.command import planner, planner_process
from tests.execution.raw import agent_process, raw_member
from tests.execution.test_execution_netns import mixed_instance

SCENARIO = """
models: {{m: {{profile: m}}}}
workers: {{{workers}}}
sources: {{s: {{worker: "{first}", models: [m], rate: 1 /s}}}}
"""


def loaded(found: Survey, folder: Path) -> dict[str, NetworkSpec]:
    """Read a survey's section as part of a scenario."""
    workers = ", ".join(f'"{name}": {{device_class: any, memory: 1 GiB}}' for name in found.workers)
    path = folder / "scenario.yaml"
    path.write_text(SCENARIO.format(workers=workers, first=found.workers[0]) + networks_yaml(found))
    return load_scenario(path).networks


def even(workers: str, media: tuple[Medium, ...], rate: float = 6.25e6) -> Survey:
    ways = [way for medium in media for a, b in medium.pairs for way in ((a, b), (b, a))]
    return Survey(tuple(workers), dict.fromkeys(ways, 0.002), dict.fromkeys(ways, rate), media)


def test_media_become_networks_that_the_loader_reads_back(tmp_path: Path) -> None:
    media = (Medium(tuple(combinations("abc", 2)), shared=True), Medium((("c", "d"),), shared=False))
    networks = loaded(even("abcd", media), tmp_path)
    assert networks["medium"].kind == "shared"
    assert networks["medium"].members == ("a", "b", "c")
    assert networks["medium"].bandwidth_bytes_per_s == pytest.approx(6.25e6)
    assert networks["medium"].latency_s == pytest.approx(0.002)
    assert networks["link-c-d"].kind == "point-to-point"
    assert networks["link-c-d"].links == (("c", "d"),)


def test_a_medium_that_does_not_join_all_becomes_one_a_pair(tmp_path: Path) -> None:
    networks = loaded(even("abc", (Medium((("a", "b"), ("b", "c")), shared=True),)), tmp_path)
    assert {network.members for network in networks.values()} == {("a", "b"), ("b", "c")}


def test_uneven_ways_are_told_and_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    found = even(("1e3", "no"), (Medium((("1e3", "no"),), shared=False),))  # type: ignore[arg-type]
    found.bytes_per_s["1e3", "no"] = 1e6
    assert "uneven: 1e3 > no 8 Mbit/s, no > 1e3 50 Mbit/s" in networks_yaml(found)
    (network,) = loaded(found, tmp_path).values()
    assert network.bandwidth_bytes_per_s == pytest.approx(1e6)
    assert network.links == (("1e3", "no"),)


@given(st.integers(2, 5), st.data())
def test_whatever_shares_a_medium_is_found(size: int, data: st.DataObject) -> None:
    pairs = list(combinations("abcde"[:size], 2))
    kinds = {pair: data.draw(st.sampled_from(["link", "wifi", "mesh"])) for pair in pairs}

    def share(first: Direction, second: Direction) -> bool:
        assert first[0] != second[0]
        assert first[1] != second[1]
        one, two = (kinds[min(way), max(way)] for way in (first, second))
        return one == two != "link"

    found = {frozenset(medium.pairs): medium.shared for medium in _media(pairs, share)}
    links = {frozenset([pair]): False for pair in pairs if kinds[pair] == "link"}
    groups = {frozenset(pair for pair in pairs if kinds[pair] == kind): True for kind in ("wifi", "mesh")}
    assert found == links | {group: shared for group, shared in groups.items() if group}


@given(
    st.lists(st.floats(0.0, 0.3), min_size=8, max_size=80),
    st.floats(1e4, 1e9),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_chunks_that_waited_on_the_receivers_host_do_not_raise_the_rate(
    waited_s: list[float], bytes_per_s: float, prompt: tuple[float, float]
) -> None:
    count, share = len(waited_s), len(waited_s) // 4
    due_s = [100.0 + CHUNK_BYTES * number / bytes_per_s for number in range(count)]
    came_s = [at_s + wait_s for at_s, wait_s in zip(due_s, waited_s, strict=True)]
    # One of the last chunks, and one of the early ones, are taken as they come, and with them all that waited.
    for taken in (count - 1 - int(prompt[1] * (share - 1)), share + int(prompt[0] * (share - 1))):
        came_s[: taken + 1] = [min(at_s, due_s[taken]) for at_s in came_s[: taken + 1]]
    size_bytes, took_s = settled([(at_s, CHUNK_BYTES) for at_s in accumulate(came_s, max)])
    assert size_bytes / took_s == pytest.approx(bytes_per_s, rel=1e-6)


@pytest.mark.parametrize(("count", "expected"), [(0, 0.0), (1, 0.0), (2, 1e6), (5, 1e6), (40, 1e6)])
def test_a_steady_flow_has_its_rate_however_few_its_chunks(count: int, expected: float) -> None:
    size_bytes, took_s = settled([(0.05 * number, 50_000) for number in range(count)])
    assert size_bytes == pytest.approx(expected * took_s)
    assert (took_s > 0) == (expected > 0)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    found = even("ab", (Medium((("a", "b"),), shared=True),))
    draw_links(found.workers, found.bytes_per_s, found.latency_s, tmp_path / "links.svg")
    assert "50 Mbit/s" in (tmp_path / "links.svg").read_text()


@contextmanager
def agents(*names: str) -> Iterator[str]:
    """Agents on the loopback interface; gives an address of one of them."""
    address = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        stack.enter_context(agent_process(names[0], "--listen", address))
        for name in names[1:]:
            stack.enter_context(agent_process(name, "--connect", address))
        yield address


def test_status_and_probe_over_loopback(tmp_path: Path) -> None:
    with agents("a", "b") as address:
        told = planner_process("status", "a", "b", "--connect", address, "--wait", "30 s", "--json")
        assert told.returncode == 0, told.stderr
        found = json.loads(told.stdout)["agents"]
        assert list(found) == ["a", "b"]
        for about in found.values():
            assert about["run"] is None
            assert about["queued"] == 0
            assert "cpu" in about["providers"]
            assert about["memory_bytes"] > 2**20
        shown = planner("status", "a", "b", "--connect", address, "--wait", "30 s").stdout
        assert "idle" in shown
        assert shown.count(f"({platform.machine()})") == 2
        output = tmp_path / "networks.yaml"
        words = ("--connect", address, "--wait", "30 s", "--duration", "0.2 s", "-o", str(output), "--json")
        probed = planner("probe", "a", "b", *words)
        assert probed.returncode == 0, probed.stderr
        document = json.loads(probed.stdout)
        assert [(way["from"], way["to"]) for way in document["ways"]] == list(permutations("ab", 2))
        for way in document["ways"]:
            assert way["bandwidth_bytes_per_s"] > 1e5
            assert 0 < way["latency_s"] < 1
        assert "link-a-b" in output.read_text()


@pytest.mark.parametrize("command", ["status", "probe"])
def test_without_agents_it_says_so(command: str) -> None:
    nowhere = planner(command)
    assert nowhere.returncode == 2
    assert "expected --connect HOST:PORT" in nowhere.stderr
    lonely = planner(command, "--connect", f"127.0.0.1:{free_port()}", "--wait", "0.2 s")
    assert lonely.returncode == 2
    assert "no agents within 0.2 s" in lonely.stderr
    open_ = planner(command, "--connect", "192.0.2.1:7447")
    assert open_.returncode == 2
    assert "--insecure" in open_.stderr


@pytest.mark.alone
@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
def test_limited_links_are_found_as_they_are(tmp_path: Path) -> None:
    with network_namespaces(mixed_instance()) as layout, ExitStack() as stack:
        address = f"{layout.coordinator}:7447"
        connect = zenoh_connect(COORDINATOR, listen=address, connect=[], insecure=True)
        inquirer = stack.enter_context(Inquirer(connect))
        for name in "bcd":
            listen = f"{layout.addresses[name]}:7447"
            options = ("--connect", address, "--listen", listen, "--insecure", "--cache", str(tmp_path))
            stack.enter_context(agent_process(name, *options, before=tuple(layout.command(name))))
        inquirer.find("bcd", 60.0)
        with pytest.raises(ExecuteError, match=r"no such agents within 0\.1 s; found 'a'"):
            inquirer.find("a", 0.1)
        # A peer finds the others a moment after the coordinator did.
        while not {"b", "d"}.issubset((about := inquirer.ask("c")[0].about).present):
            assert "c" not in about.present
        found = survey(inquirer, "bcd", duration_s=0.6)
    assert set(found.bytes_per_s) == {("b", "c"), ("c", "b"), ("c", "d"), ("d", "c")}
    # The medium gives 4 MB/s and the link 2, headers included; without limits it would be hundreds.
    assert all(found.bytes_per_s[way] < 1.3 * 4e6 for way in permutations("bc", 2))
    assert all(found.bytes_per_s[way] < 1.3 * 2e6 for way in permutations("cd", 2))
    shared = next(medium for medium in found.media if medium.members == ("b", "c"))
    assert shared.shared


def test_nobodys_malformed_message_ends_an_inquiry_and_its_sender_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        Inquirer(zenoh_connect(COORDINATOR, listen=address, connect=[])) as inquirer,
        raw_member("x", connect=address) as other,
        agent_process("b", "--connect", address, "--cache", str(tmp_path)),
    ):
        inquirer.find(["b", "x"], 60.0)
        other.wait_for(COORDINATOR)
        other.send(COORDINATOR, Frame(Taken(run="r", worker="x", by=this_process())))
        other.put(COORDINATOR, b"no fragment")
        while "x" not in inquirer.problems:
            assert [state.about.worker for state in inquirer.ask(["b"])] == ["b"]
        assert inquirer.problems.keys() == {"x"}
        with pytest.raises(ExecuteError, match="agent b: ping: no such member is present: y"):
            inquirer.latency_s(("b", "y"))
        monkeypatch.setattr("planner.execution.probe.survey._ANSWER_S", 4.0)
        assert [state.about.worker for state in inquirer.ask(["b", "x"])] == ["b"]
        monkeypatch.setattr("planner.execution.probe.survey._ANSWER_S", 0.1)
        with pytest.raises(ExecuteError, match="agent x: its message is refused: fragment: malformed header"):
            inquirer.ask(["x"])
