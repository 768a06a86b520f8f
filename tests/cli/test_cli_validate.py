"""``planner validate`` as a user calls it: on this machine, unpaced, in namespaces, on agents elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planner.execution.launch.netns import unavailable
from planner.execution.wire.zenoh import free_port
from tests.cli.command import planner, planner_process
from tests.execution.case import write_case

WIDE = ("--tolerance", "10000 %")
"""A busy machine may take its time; what is compared here is not the speed."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case"))


def validated(*words: str | Path) -> dict[str, Any]:
    finished = planner("validate", *words, *WIDE, "--json")
    assert finished.returncode == 0, finished.stderr + finished.stdout
    document: dict[str, Any] = json.loads(finished.stdout)
    assert (document["passed"], document["lost"], document["failed"], document["duplicates"]) == (True, 0, 0, 0)
    assert document["numerics"]["max_rel_error"] <= 1e-4
    return document


@pytest.mark.alone
def test_at_this_machines_own_speed_and_what_is_said_of_it(plan: Path, tmp_path: Path) -> None:
    document = validated(plan, "--local", "--unpaced", "--samples", "20", "-o", tmp_path)
    assert document["numerics"]["samples"] == 40
    (tolerance,) = document["numerics"]["tolerances"]
    assert (tolerance["model"], tolerance["provider"], tolerance["tolerance"]) == ("small", "cpu", 1e-4)
    assert tolerance["whole_error"] <= 1e-4
    assert all(
        check["passed"] and check.keys() == {"name", "passed", "found", "expected"} for check in document["checks"]
    )
    assert json.loads((tmp_path / "result.json").read_text()) == document
    for name in ("urgent", "other"):
        own = document["sources"][name]
        for side in ("predicted", "measured"):
            legs_s = sum(sum(leg[side].values()) for leg in own["legs"])
            assert legs_s == pytest.approx(own[side]["mean_delay_s"], rel=1e-6)
        assert [leg["place"] for leg in own["legs"]] == ["a: block 0", "lan: cut 1", "b: blocks 1-2", "lan: cut 3"]
        # Blocks that the profile says take 4 ms take some microseconds.
        assert own["legs"][0]["measured"]["work_s"] < own["legs"][0]["predicted"]["work_s"]
    assert set(document["workers"]) == {"a", "b"}
    assert set(document["networks"]) == {"lan"}
    assert all(0 <= found["measured"] <= 1 for found in document["workers"].values())


def test_a_tolerance_that_is_not_met_is_no_and_the_tables_say_why(plan: Path) -> None:
    here = ("--local", "--unpaced", "--duration", "0.5s", "--calibrate", "0.2s")
    finished = planner_process("validate", plan, *here, "--tolerance", "0.01 %")
    assert finished.returncode == 1
    assert "before the run" in finished.stdout
    assert "predicted from the profiles: urgent" in finished.stdout
    assert "Where a sample's time goes" in finished.stdout
    assert finished.stdout.splitlines()[-1].startswith("NOT PASSED: mean delay of urgent (")
    assert "Traceback" not in finished.stderr


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
def test_through_real_links_in_namespaces(plan: Path) -> None:
    document = validated(plan, "--netns", "--samples", "15")
    assert document["numerics"]["samples"] == 30


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[str]:
    """Two agents that run already; the address of one, by which the other is found."""
    address = f"127.0.0.1:{free_port()}"
    common = [sys.executable, "-m", "planner", "agent", "--cache", str(tmp_path), "--until-stdin-closes"]
    started = [
        subprocess.Popen([*common, *words], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for words in (["--name", "a", "--listen", address], ["--name", "b", "--connect", address])
    ]
    try:
        yield address
    finally:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
            assert process.wait(20) == 0


def test_on_agents_that_are_there_already_twice(plan: Path, agents: str) -> None:
    for _ in range(2):
        assert validated(plan, "--connect", agents, "--samples", "10")["numerics"]["samples"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "planner validate: where to run is not said, or said twice; expected --local, --netns or --connect"),
        (["--local", "--calibrate", "5s"], "--calibrate: paced workers take the times of the scenario"),
        (["--local", "--netns"], "planner validate: where to run is not said, or said twice"),
        (["--local", "--duration", "30"], "a bare number needs a unit; found '30'; expected a time"),
        (["--connect", "nowhere"], "address: not an address; found 'nowhere'; expected HOST:PORT"),
        (["--connect", "::1"], "address: not an address; found '::1'; expected HOST:PORT"),
        (["--connect", "localhost:²"], "address: not an address; found 'localhost:²'; expected HOST:PORT"),
        (["--local", "--home-timeout", "-1s"], "--home-timeout: must not be negative; found '-1s'; expected a time"),
        (["--local", "--duration", "nan"], "--duration: not a quantity; found 'nan'; expected a time"),
        (["--local", "--tolerance", "some"], "--tolerance: not a quantity; found 'some'; expected a percentage"),
        (["--connect", "192.0.2.7:7447"], "address: outside the loopback interface; found '192.0.2.7'"),
    ],
)
def test_bad_options_end_with_one_message(plan: Path, options: list[str], message: str) -> None:
    finished = planner("validate", plan, *options)
    assert finished.returncode == 2, finished.stdout
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
