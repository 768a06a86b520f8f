"""Simulations from Python, under built-in policies and one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import planner
from planner.errors import UsageError
from planner.policy.types import View
from tests.cli.command import planner as command
from tests.execution.case import write_case


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> planner.Plan:
    return planner.load_plan(write_case(tmp_path_factory.mktemp("case")))


class OtherFirst(planner.policies.PriorityPolicy):
    """Serves the source that the scenario finds less important."""

    def priority(self, view: View, source: str) -> float:  # noqa: ARG002
        return 2.0 if source == "other" else 1.0


@pytest.fixture
def other_first() -> Iterator[str]:
    planner.policies.register("other-first", lambda _instance: OtherFirst(), description="The less important first.")
    yield "other-first"
    planner.policies.unregister("other-first")


def test_it_is_what_the_command_prints(plan: planner.Plan, tmp_path: Path) -> None:
    assert plan.path is not None
    result = planner.simulate(plan.scenario, plan, policy="adaptive", replications=2, progress=None)
    assert plan.scenario.path is not None
    words = ("--plan", plan.path, "--policy", "adaptive", "--repeat", "2", "--json")
    finished = command("simulate", plan.scenario.path, *words)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == json.loads(json.dumps(result.to_dict()))
    assert result.seeds == (0, 1)
    assert "±" in result.summary()
    assert "<caption>" in result._repr_html_()
    result.plot(tmp_path / "delays.svg")
    assert "urgent" in (tmp_path / "delays.svg").read_text()


def test_files_are_as_good_as_objects_and_a_folder_takes_traces(plan: planner.Plan, tmp_path: Path) -> None:
    assert plan.path is not None
    result = planner.simulate(str(plan.scenario.path), str(plan.path), folder=str(tmp_path), progress=None)
    assert result.policy == "planned"
    assert result.metrics == planner.simulate(plan.scenario, plan, progress=None).metrics
    assert {"trace.jsonl", "timeline.png", "delays.png", "plan.png"} <= {file.name for file in tmp_path.iterdir()}


def test_a_policy_of_ones_own(plan: planner.Plan, other_first: str) -> None:
    assert other_first in planner.policies.names()
    both = planner.compare_policies(
        plan.scenario, policies=["local", other_first], replications=2, processes=2, progress=None
    )
    assert tuple(both) == ("local", other_first)
    assert other_first in both.summary()
    for run, mine in zip(both["local"].metrics, both[other_first].metrics, strict=True):
        own = mine.sources["other"].mean_delay_s
        other = run.sources["other"].mean_delay_s
        assert own is not None
        assert other is not None
        assert own < other


def test_policies_without_a_plan_are_the_default_without_one(plan: planner.Plan) -> None:
    assert "planned" not in planner.compare_policies(plan.scenario, progress=None)
    assert "planned" in planner.compare_policies(plan.scenario, plan, progress=None)
    with pytest.raises(UsageError, match="follows a plan, and none was given"):
        planner.simulate(plan.scenario, policy="adaptive", progress=None)
    with pytest.raises(UsageError, match="unknown policy"):
        planner.simulate(plan.scenario, policy="magic", progress=None)
    with pytest.raises(UsageError, match="too few replications"):
        planner.simulate(plan.scenario, replications=0, progress=None)


def test_one_name_stands_for_a_list_of_it(plan: planner.Plan, tmp_path: Path) -> None:
    assert list(planner.compare_policies(plan.scenario, plan, policies="local", progress=None)) == ["local"]
    [only] = planner.compare(plan.scenario, methods="local", progress=None).results
    assert only.method == "local"
    assert plan.path is not None
    assert planner.write_report(plan.path, tmp_path / "report.html") is not None
    with pytest.raises(UsageError, match=r"connect: .*\['127\.0\.0\.1:7447'\]"):
        planner.validate(plan, connect="127.0.0.1:7447", progress=None)  # the place is another
