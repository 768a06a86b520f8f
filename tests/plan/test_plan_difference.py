"""The difference of two plans names what differs, in values and in words, and nothing else."""

from __future__ import annotations

import pytest

from planner.plan.difference import plan_difference
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage, WorkerUse
from planner.scenario.instance import Instance
from tests.instances import make_instance, make_profile


def instance(workers: tuple[str, ...] = ("box", "cabinet", "office"), **sources: dict[str, object]) -> Instance:
    return make_instance(
        profiles=[make_profile("small", block_s=[0.004] * 4, cut_bytes=[100] * 5)],
        workers=dict.fromkeys(workers, 1.0),
        sources=sources or {"yard": {"rate_per_s": 5.0, "priority": 1.0, "samples": 10}},
    )


def plan(delay_s: float, *routes: list[tuple[str, int, int]], source: str = "yard") -> PlanSpec:
    built = tuple(
        Route(
            share=1 / len(routes),
            model="small",
            stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
        )
        for stages in routes
    )
    planned = SourcePlan(accuracy=1.0, delay_s=delay_s, surrogate_delay_s=delay_s, routes=built)
    used = sorted({stage.worker for route in built for stage in route.stages})
    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={source: planned}, networks={},
        workers={name: WorkerUse(utilisation=0.2, memory_bytes=1e6) for name in used},
    )  # fmt: skip


HOME = [("box", 0, 3)]
CABINET = [("box", 0, 0), ("cabinet", 1, 3)]
OFFICE = [("box", 0, 0), ("office", 1, 3)]


def lines(old: PlanSpec, new: PlanSpec, before: Instance | None = None, after: Instance | None = None) -> list[str]:
    return plan_difference(before or instance(), old, after or instance(), new).lines()


def test_a_plan_does_not_differ_from_itself() -> None:
    one = plan(0.04, CABINET, OFFICE)
    found = plan_difference(instance(), one, instance(), one)
    assert found.same
    assert found.lines() == ["the plans are the same"]


def test_a_route_that_moves_is_named_with_the_delay_that_it_costs() -> None:
    assert lines(plan(0.040, CABINET), plan(0.052, OFFICE))[0] == "yard moves from cabinet to office; +12 ms"
    assert lines(plan(0.052, OFFICE), plan(0.040, CABINET))[0] == "yard moves from office to cabinet; -12 ms"
    assert lines(plan(0.040, CABINET), plan(4.140, OFFICE))[0] == "yard moves from cabinet to office; +4100 ms"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([HOME], [CABINET], "yard moves from box to cabinet"),
        ([CABINET], [HOME], "yard moves from cabinet to box"),
        ([CABINET], [CABINET, OFFICE], "yard moves from cabinet to office"),
        ([CABINET], [[("box", 0, 1), ("cabinet", 2, 3)]], "yard moves work from cabinet to box"),
        ([[("box", 0, 0), ("cabinet", 1, 2), ("box", 3, 3)]], [[("box", 0, 1), ("cabinet", 2, 3)]],
         "yard takes other routes over box and cabinet"),
    ],
)  # fmt: skip
def test_movements(old: list[list[tuple[str, int, int]]], new: list[list[tuple[str, int, int]]], expected: str) -> None:
    assert lines(plan(0.04, *old), plan(0.04, *new))[0] == expected


def test_settings_of_sources_are_named() -> None:
    before = instance(yard={"rate_per_s": 5.0, "priority": 1.0, "samples": 10})
    after = instance(yard={"rate_per_s": 8.0, "priority": 4.0, "samples": 10})
    one = plan(0.04, CABINET)
    assert lines(one, one, before, after) == ["yard has priority 4 in place of 1; has rate 8 /s in place of 5 /s"]


def test_sources_and_workers_come_and_go() -> None:
    gate: dict[str, object] = {"rate_per_s": 5.0, "priority": 1.0, "samples": 10}
    old, new = plan(0.04, CABINET), plan(0.03, OFFICE, source="gate")
    found = plan_difference(instance(("box", "cabinet")), old, instance(("box", "office"), gate=gate), new)
    assert {name: source.what for name, source in found.sources.items()} == {"yard": "removed", "gate": "added"}
    whats = {name: worker.what for name, worker in found.workers.items()}
    assert whats == {"box": "unchanged", "cabinet": "removed", "office": "added"}
    assert found.lines() == [
        "yard is removed",
        "gate is added at box, computed on box and office; 30 ms",
        "cabinet is removed",
        "office is added, loads blocks 1-3 of small, utilisation 20%",
    ]


def test_a_delay_without_limit_is_no_number() -> None:
    found = plan_difference(instance(), plan(0.04, CABINET), instance(), plan(float("inf"), OFFICE))
    assert found.sources["yard"].delay_s == (0.04, None)
    assert "its delay grows without limit" in found.lines()[0]
    assert type(found).model_validate_json(found.model_dump_json()) == found
