"""Policies by name: the built-in ones, those that a program registers, and those of installed packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.errors import UsageError
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.base import BasePolicy
from planner.policy.registry import (
    ENTRY_POINTS,
    POLICIES,
    Registration,
    make_policy,
    needs_plan,
    register,
    registered,
    unregister,
)
from planner.policy.routed import Planned
from planner.policy.types import View
from planner.scenario.instance import Instance
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord
from tests.instances import make_instance

INSTANCE = make_instance(workers={"slow": 1.0, "fast": 4.0}, sources={"camera": {"rate_per_s": 5.0, "samples": 20}})
STAGES = (Stage(worker="fast", first_block=0, last_block=1),)
PLAN = PlanSpec(
    status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
    provenance="measured", workers={}, networks={},
    sources={
        "camera": SourcePlan(
            accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="m", stages=STAGES),)
        )
    },
)  # fmt: skip


class AlwaysFast(BasePolicy):
    """Sends every sample to the worker ``fast``."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def route(self, view: View, source: str) -> Route:  # noqa: ARG002
        return Route(model="m", stages=STAGES)


@pytest.fixture
def always_fast() -> Iterator[str]:
    register("always-fast", AlwaysFast, description="Every sample to the fast worker.")
    yield "always-fast"
    unregister("always-fast")


def test_the_built_in_policies_are_registered() -> None:
    assert tuple(registered()) == POLICIES
    assert [name for name in POLICIES if needs_plan(name)] == ["planned", "adaptive"]
    for name, entry in registered().items():
        assert entry.name == name
        assert entry.description.endswith(".")


def test_a_registered_policy_is_simulated_by_its_name(always_fast: str) -> None:
    assert registered()[always_fast].description == "Every sample to the fast worker."
    assert not needs_plan(always_fast)
    records, _ = simulate(INSTANCE, policy=always_fast)
    assert {record.worker for record in records if isinstance(record, BlockRecord)} == {"fast"}


def test_a_policy_may_need_a_plan() -> None:
    register("mine", Planned, needs_plan=True)
    try:
        assert needs_plan("mine")
        with pytest.raises(UsageError, match=r"policy 'mine' follows a plan, and none was given; expected --plan PLAN"):
            make_policy("mine", INSTANCE, None)
        records, _ = simulate(INSTANCE, policy="mine", plan=PLAN)
    finally:
        unregister("mine")
    assert {record.worker for record in records if isinstance(record, BlockRecord)} == {"fast"}


@pytest.mark.parametrize("name", [*POLICIES, "always-fast"])
def test_a_name_is_taken_once(name: str, always_fast: str) -> None:
    assert always_fast in registered()
    with pytest.raises(UsageError, match=f"register: a policy of this name is already registered; found '{name}'"):
        register(name, AlwaysFast)


@pytest.mark.parametrize("name", ["", "all", "two words", "-v", "a/b", "a\n", None])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(UsageError, match="not a name for a policy"):
        register(name, AlwaysFast)
    assert tuple(registered()) == POLICIES


def test_what_is_no_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="the factory of policy 'mine' is not callable"):
        register("mine", "my_module:MyPolicy")  # type: ignore[arg-type]
    register("mine", lambda _: object())  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(UsageError, match=r"it lacks batches, choose, .*; found 'object'; expected .*BasePolicy"):
            make_policy("mine", INSTANCE, None)
    finally:
        unregister("mine")


def test_only_what_was_registered_can_be_unregistered() -> None:
    with pytest.raises(UsageError, match="a built-in policy cannot be unregistered"):
        unregister("planned")
    with pytest.raises(UsageError, match="no policy of this name is registered"):
        unregister("mine")
    assert tuple(registered()) == POLICIES


def test_the_registry_itself_cannot_be_written_to() -> None:
    entry: Registration = registered()["local"]
    with pytest.raises(TypeError):
        registered()["mine"] = entry  # type: ignore[index]


def test_an_unknown_name_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(
        UsageError, match=r"--policy: unknown policy; found 'mine'; expected local \| .*planner\.policies"
    ):
        needs_plan("mine")


# ---- installed packages ---------------------------------------------------------------------------------------------

MODULE = """
from planner.policy.base import BasePolicy
from planner.policy.registry import register

class Idle(BasePolicy):
    def __init__(self, instance):
        pass

register({name!r}, Idle)
"""
SCRIPT = """
import sys
from planner.errors import UsageError
from planner.policy.registry import make_policy, registered
from planner.scenario.instance import Instance
instance = Instance.model_validate_json(sys.stdin.read())
assert "packaged" not in registered()
try:
    print(type(make_policy("packaged", instance, None)).__name__)
except UsageError as error:
    print(error)
"""


def in_another_process(folder: Path) -> str:
    """Make the policy as an agent does, in a process that has not registered it."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", SCRIPT]
    sent = INSTANCE.model_dump_json()
    return subprocess.run(command, env=env, input=sent, capture_output=True, text=True, check=True).stdout


def install(folder: Path, module: str) -> None:
    """Lay out a package as an installer does."""
    (folder / "my_policies.py").write_text(module)
    info = folder / "my_policies-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-policies\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\npackaged = my_policies\n")


@pytest.mark.slow
def test_a_policy_of_an_installed_package_is_known_to_every_process(tmp_path: Path) -> None:
    install(tmp_path, MODULE.format(name="packaged"))
    assert in_another_process(tmp_path) == "Idle\n"


@pytest.mark.slow
def test_without_the_package_another_process_says_what_is_missing(tmp_path: Path) -> None:
    assert "in a package that is installed here, on each agent's device too" in in_another_process(tmp_path)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("import not_there", "policy 'packaged' cannot be loaded: ModuleNotFoundError: No module named 'not_there'"),
        (MODULE.format(name="else"), "importing its module does not register policy 'packaged'"),
        (
            MODULE.format(name="local"),
            "cannot be loaded: UsageError: register: a policy of this name is already registered",
        ),
    ],
)
@pytest.mark.slow
def test_a_package_that_does_not_do_what_it_says_is_reported(tmp_path: Path, module: str, message: str) -> None:
    install(tmp_path, module)
    told = in_another_process(tmp_path)
    assert message in told
    assert told.startswith("entry point packaged in 'planner.policies': ")
    assert "; found 'my_policies'; expected a module that " in told
