"""Extreme but valid magnitudes: a sensible status in words that fit, never a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.errors import PlannerError, ProfileError
from planner.plan.verify import verify
from planner.profiling.store import load_profile
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, ObjectiveSpec
from planner.solvers import METHODS, solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.infeasibility import lacks, late
from planner.solvers.core.search_state import Options
from planner.solvers.methods import exhaustive
from tests.examples import examples
from tests.instances import MIB, make_instance, make_profile

PROVEN = ("milp", "exhaustive", "auto")


@st.composite
def extreme_instances(draw: st.DrawFn) -> Instance:
    """Return an instance of two workers, whose quantities are drawn from the ends of their ranges."""

    def one(*values: float) -> float:
        return float(draw(st.sampled_from(values)))

    blocks = draw(st.integers(1, 3))
    cuts = [int(one(1000, 0, 1, 1e6, 1e12, 1e18)) for _ in range(blocks + 1)]
    profiles = [
        make_profile(
            device_class=name,
            block_s=[one(0.01, 1e-12, 1e-6, 1.0, 1e3, 1e6) for _ in range(blocks)],
            std_s=one(0.0, 1e6),
            cut_bytes=cuts,
            weight_bytes=[int(one(1e6, 0, 1, 1e9, 1e18)) for _ in range(blocks)],
            activation_bytes=[int(one(1e6, 0, 1, 1e18)) for _ in range(blocks)],
            parameters=1,
            stage_overhead_s=one(0.0, 1e-3, 1e6),
        )
        for name in ("x", "y")
    ]
    network = NetworkSpec(
        kind="shared",
        members=("a", "b"),
        bandwidth_bytes_per_s=one(1e7, 1e-3, 1e18),
        latency_s=one(1e-3, 0.0, 1e9),
    )
    sources: dict[str, dict[str, Any]] = {
        f"s{index}": {
            "worker": draw(st.sampled_from(["a", "b"])),
            "rate_per_s": one(1.0, 1e-12, 1e-3, 5.0, 1e12),
            "priority": one(1.0, 1e-9, 1e9),
            "samples": int(one(10, 1, 1e8)),
            "max_mean_delay_s": draw(st.sampled_from([None, 1e-9, 1e-2, 1.0, 1e9])),
        }
        for index in range(draw(st.integers(1, 2)))
    }
    return make_instance(
        profiles=profiles,
        workers={
            name: {
                "device_class": device_class,
                "memory_bytes": one(1e9, 1e6 + 2, 1e18),
                "base_memory_bytes": 0.0,
                "speed": one(1.0, 1e-9, 1e9),
            }
            for name, device_class in (("a", "x"), ("b", "y"))
        },
        networks={"wifi": network} if draw(st.booleans()) else {},
        sources=sources,
        objective=ObjectiveSpec.model_validate(
            {
                "goal": draw(st.sampled_from(["delay", "throughput", "makespan"])),
                "accuracy_worth": one(0.0, 1e9),
                "service_cv": one(1.0, 0.0, 1e3),
            }
        ),
    )


@settings(examples(5, nightly=60), suppress_health_check=list(HealthCheck))
@given(extreme_instances())
def test_every_method_ends_with_a_sensible_status(instance: Instance) -> None:
    problem = build_problem(instance)
    oracle = exhaustive.solve(problem, Options()).status
    for method in ("auto", *METHODS):
        try:
            solution = solve(instance, method=method, time_limit_s=10.0, gap=0.1)
        except PlannerError:
            assert method in {"dp", "convex"}, method  # another kind of problem; Clarabel gives up
            continue
        if solution.plan is not None:
            verify(instance, solution.plan)
        if oracle == "infeasible":
            assert solution.plan is None or method in {"colgen", "convex"}, method
        else:
            assert solution.status != "infeasible", method
        if method in PROVEN:
            # A plan that keeps to its limits only until samples wait is none, and does not prove anything.
            assert solution.plan is not None or solution.status == (oracle if oracle == "infeasible" else "no_solution")
        if solution.status == "infeasible":
            assert solution.reasons, method
            assert not any("no route joins" in reason for reason in solution.reasons), method


@pytest.mark.parametrize("method", ["auto", "milp", "search", "colgen", "convex", "exhaustive"])
@pytest.mark.parametrize("block_s", [1e3, 1e6])
def test_a_wrong_unit_is_told_by_the_load(method: str, block_s: float) -> None:
    instance = make_instance(
        profiles=[make_profile(block_s=[block_s, 0.01])],
        workers={"mini": 1.0},
        networks={},
        sources={"camera": {"rate_per_s": 5.0}},
    )
    solution = solve(instance, method=method)
    assert solution.status == "infeasible"
    assert solution.reasons == (f"worker mini would be {500 * block_s:.2g}% busy, 95% is allowed",)


def test_a_block_of_nanoseconds_taken_for_seconds_is_refused(tmp_path: Path) -> None:
    document = json.loads(make_profile().model_dump_json(by_alias=True))
    document["blocks"][1]["mean_s"] = 1e9
    document["blocks"][0]["weight_bytes"] = 10**30
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(ProfileError) as error:
        load_profile(tmp_path / "m.json")
    assert [(fault.where or "").rpartition(": ")[2] for fault in error.value.faults] == [
        "blocks[0].weight_bytes",
        "blocks[1].mean_s",
    ]


@pytest.mark.parametrize(
    ("lack_bytes", "words"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1.88 * MIB, "1.88 MiB"),
        (281 * MIB, "281 MiB"),
        (1e18, "909495 TiB"),
    ],
)
def test_a_lack_of_memory_is_worded_in_its_size(lack_bytes: float, words: str) -> None:
    assert lacks("mini", lack_bytes) == f"worker mini lacks {words}"


def test_a_delay_and_its_deadline_never_look_equal() -> None:
    assert late("camera", 0.0210001, 0.021) == "camera would take 21.0001 ms, its max_mean_delay is 21 ms"
    assert late("camera", 7200.0, 1e-6) == "camera would take 2 h, its max_mean_delay is 1 us"


def test_one_missing_byte_is_told() -> None:
    """All methods agree on a memory that is one byte too small, on a worker of many GiB."""
    profile = make_profile(block_s=[0.01] * 4, weight_bytes=2 * 2**30 - 1, activation_bytes=3)
    for lacking in (0, 1):
        instance = make_instance(
            profiles=[profile],
            workers={"mini": {"memory_bytes": 8.0 * 2**30 - 1 - lacking, "base_memory_bytes": 0.0}},
            networks={},
        )
        for method in ("milp", "search", "colgen", "convex", "exhaustive"):
            solution = solve(instance, method=method)
            assert solution.status == ("infeasible" if lacking else "optimal"), method
            assert solution.reasons == (("worker mini lacks 1 B",) if lacking else ()), method
