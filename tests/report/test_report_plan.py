"""The picture of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, Stage
from planner.profiling.types import ExitPoint, OperatingPoint
from planner.report.headline import headline
from planner.report.loads import MAX_LOADS
from planner.report.plan import MAX_HEIGHT, MAX_ROUTES, draw_plan
from planner.scenario.instance import Instance
from planner.scenario.types import ObjectiveSpec
from tests.instances import MIB, make_instance, make_profile, random_instance

GATE = {"rate_per_s": 4.0, "priority": 8.0, "max_mean_delay_s": 0.25}
YARD = {"rate_per_s": 8.0, "priority": 1.0}


def route(*stages: tuple[str, int, int], model: str = "m", point: int = 0, share: float = 1.0) -> Route:
    return Route(
        share=share,
        model=model,
        operating_point=point,
        stages=tuple(Stage(worker=worker, first_block=first, last_block=last) for worker, first, last in stages),
    )


def planned(instance: Instance, routes: Mapping[str, Sequence[Route]]) -> PlanSpec:
    evaluation = evaluate(instance, routes)
    return PlanSpec(
        status="feasible",
        method="search",
        goal=instance.scenario.objective.goal,
        objective=evaluation.objective,
        bound=0.0,
        gap=1.0,
        solve_s=0.5,
        provenance="measured",
        sources=evaluation.sources,
        workers=evaluation.workers,
        networks=evaluation.networks,
    )


def drawn(folder: Path, instance: Instance, routes: Mapping[str, Sequence[Route]]) -> str:
    draw_plan(instance, planned(instance, routes), folder / "plan.svg")
    return (folder / "plan.svg").read_text(encoding="utf-8")


SPLIT = {
    "yard": [route(("slow", 0, 0), ("fast", 1, 1), share=0.75), route(("slow", 0, 1), share=0.25)],
    "gate": [route(("fast", 0, 1))],
}


def test_the_picture_shows_all_of_a_plan(tmp_path: Path) -> None:
    profile = make_profile(block_s=[0.01, 0.04])
    instance = make_instance(profiles=[profile], sources={"yard": YARD, "gate": GATE})
    text = drawn(tmp_path, instance, SPLIT)
    plan = planned(instance, SPLIT)
    assert "mean delay" in headline(instance, plan)
    assert f">{headline(instance, plan)}<" in text
    for label in ("slow: block 0", "fast: block 1", "slow: blocks 0-1", "fast: blocks 0-1"):
        assert f">{label}<" in text
    assert text.count(">wifi") > 2  # on bars of routes, with the time that sending takes, and beside its own bar
    assert ">wifi: 1" in text
    assert all(f">{share}<" in text for share in ("75.0%", "25.0%", "100.0%"))
    assert ">priority 8, 4 /s, mean ≤ 250 ms<" in text
    assert ">yard<" in text
    assert text.index(">gate<") < text.index(">yard<")  # the most important first
    for flow in plan.sources.values():
        assert f">{1e3 * flow.delay_s:.3g} ms<" in text
    assert f">{plan.networks['wifi'].utilisation:.1%}<" in text
    assert f">{plan.workers['slow'].memory_bytes / MIB:.0f} MiB of 4.0 GiB<" in text
    assert ">waiting for what follows<" in text
    assert "more" not in text


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_plan_gives_the_same_file(tmp_path: Path, kind: str) -> None:
    instance = make_instance(sources={"yard": YARD, "gate": GATE})
    paths = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for path in paths:
        draw_plan(instance, planned(instance, SPLIT), path)
    content = paths[0].read_bytes()
    assert content == paths[1].read_bytes()
    assert content.startswith(b"<?xml" if kind == "svg" else b"\x89PNG")


def test_an_unbounded_wait_is_marked_and_other_sources_are_drawn(tmp_path: Path) -> None:
    instance = make_instance(sources={"yard": YARD | {"rate_per_s": 60.0}, "gate": GATE})
    text = drawn(tmp_path, instance, {"yard": [route(("slow", 0, 1))], "gate": [route(("slow", 0, 1))]})
    assert ">unbounded wait for slow, slow: 0-1<" in text
    assert text.count(">∞<") == 1
    assert text.count(">overloaded<") == 1  # the gate alone could run at home
    assert ">128.0%<" in text
    assert ">slow: blocks 0-1<" in text  # the gate's
    alone = make_instance(sources={"yard": YARD | {"rate_per_s": 60.0}})
    assert ">∞<" in drawn(tmp_path, alone, {"yard": [route(("slow", 0, 1))]})  # although there is no bar


def test_a_model_too_large_for_home_is_marked(tmp_path: Path) -> None:
    instance = make_instance(workers={"slow": {"memory_bytes": 201 * MIB}, "fast": 4.0}, sources={"gate": GATE})
    text = drawn(tmp_path, instance, {"gate": [route(("fast", 0, 1))]})
    assert ">does not fit<" in text


def test_exits_are_means_over_all_samples(tmp_path: Path) -> None:
    profile = make_profile(
        block_s=[0.04, 0.08],
        exits=[ExitPoint(name="e", cut=1, result_bytes=1000)],
        operating_points=[
            OperatingPoint(name="sure", accuracy=0.92, thresholds=(0.9,), reach=(1.0, 0.7)),
            OperatingPoint(name="quick", accuracy=0.86, thresholds=(0.5,), reach=(1.0, 0.3)),
        ],
    )
    instance = make_instance(profiles=[profile], sources={"gate": GATE})
    text = drawn(tmp_path, instance, {"gate": [route(("slow", 0, 0), ("fast", 1, 1))]})
    assert ">fast: block 1 (70%)<" in text or ">fast: 1 (70%)<" in text
    assert ">m (sure)<" in text
    assert "accuracy 92.0%<" in text
    assert "times are means over all<" in text


def test_pictures_of_goals_without_queues_state_their_condition(tmp_path: Path) -> None:
    batch = make_instance(
        sources={"gate": {"arrivals": "batch", "samples": 10}}, objective=ObjectiveSpec(goal="makespan")
    )
    text = drawn(tmp_path, batch, {"gate": [route(("slow", 0, 1))]})
    assert "without waiting" in text
    assert ">Work of the batch<" in text
    assert ">200 ms<" in text  # ten times 20 ms
    assert "waiting for" not in text
    more = {"gate": GATE | {"rate_per_s": 100.0}}
    sustained = make_instance(sources=more, objective=ObjectiveSpec(goal="throughput"))
    text = drawn(tmp_path, sustained, {"gate": [route(("slow", 0, 1))]})
    assert "at 47.5% of the rates" in text
    assert ">200.0%<" in text
    assert ">∞<" not in text


def test_only_the_routes_with_the_largest_shares_are_drawn(tmp_path: Path) -> None:
    count = MAX_ROUTES + 5
    shares = [(index + 1) / (count * (count + 1) / 2) for index in range(count)]
    instance = random_instance(1, sources=1, workers=count, links=False, load=0.05)
    routes = [route((f"w{index}", 0, 3), model="m0", share=share) for index, share in enumerate(shares)]
    text = drawn(tmp_path, instance, {"s0": routes})
    assert f">and 5 more routes, {sum(shares[:5]):.1%} of the samples<" in text
    positions = [text.index(f">{share:.1%}<") for share in reversed(shares[5:])]
    assert positions == sorted(positions)


def test_the_picture_of_many_sources_and_networks_stays_readable(tmp_path: Path) -> None:
    instance = random_instance(2, sources=64, workers=12, load=0.004)
    home_of = {name: instance.workers.index(instance.home(name)) for name in instance.sources}
    routes = {
        name: [route((instance.workers[(home_of[name] + 1 + index % 5) % 12], 0, 3), model=f"m{index}")]
        for index, name in enumerate(instance.sources)
    }
    text = drawn(tmp_path, instance, routes)
    shown = [name for name in instance.sources if f">{name}, priority" in text]
    assert 15 < len(shown) < MAX_HEIGHT
    assert f">and {64 - len(shown)} more sources, of priority " in text
    priority = {name: spec.priority for name, spec in instance.scenario.sources.items()}
    assert min(priority[name] for name in shown) >= max(
        priority[name] for name in instance.sources if name not in shown
    )
    names = (*instance.workers, *instance.resources)
    assert f">and {len(names) - MAX_LOADS} more, at most " in text
