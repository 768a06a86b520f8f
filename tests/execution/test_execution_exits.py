"""Agents act on what the model really says: real images leave the trained model where they are sure enough."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from planner.execution.coordinator.deployment import Deployment, deploy
from planner.execution.coordinator.run_result import RunResult
from planner.execution.wire.frames import Tensors
from planner.model.load import ChainModel, load_chain
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.registry import make_policy
from planner.profiling.store import load_profile
from planner.runtime.confidence import confidence
from planner.runtime.inputs import load_arrays
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, SampleRecord, TransferRecord
from planner.worker.worker import Worker
from tests.execution.rig import agents_in_threads
from tests.instances import make_instance

ROOT = Path(__file__).parents[2]
NAME = "resnet56-exits-fashion"
PROFILE = load_profile(ROOT / "profiles" / "x86-64" / f"{NAME}.json")
STRICT, LOOSE = 2, 6
SAMPLES = 25
CUTS = {"exit1": 2, "exit2": 5, "output": 8}


@cache
def model() -> ChainModel:
    return load_chain(ROOT / "models" / f"{NAME}.onnx")


@cache
def images() -> list[Tensors]:
    pictures = load_arrays(ROOT / "models" / f"{NAME}.npz", {"input"})["input"]
    return [{"input": pictures[index : index + 1]} for index in range(SAMPLES)]


@cache
def expected() -> list[Tensors]:
    whole = BlockSession(model().path)
    return [whole.run(image) for image in images()]


def leaves(sample: int, point: int) -> str:
    """Where a sample leaves the whole model."""
    made = expected()[sample]
    for name, threshold in zip(("exit1", "exit2"), PROFILE.operating_points[point].thresholds, strict=True):
        if confidence(made[name])[0] >= threshold:
            return name
    return "output"


def instance() -> Instance:
    keys = {"models": [NAME], "rate_per_s": 100.0, "samples": SAMPLES}
    return make_instance(
        profiles=[PROFILE], workers={"a": 1.0, "b": 1.0, "c": 1.0}, sources={"strict": keys, "loose": keys}
    )


def plan(*stages: tuple[str, int, int, tuple[int, ...]]) -> PlanSpec:
    def own(point: int) -> SourcePlan:
        built = tuple(
            Stage(worker=worker, first_block=first, last_block=last, sessions=sessions)
            for worker, first, last, sessions in stages
        )
        route = Route(model=NAME, operating_point=point, stages=built)
        return SourcePlan(accuracy=0.9, delay_s=0.1, surrogate_delay_s=0.1, routes=(route,))

    return PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"strict": own(STRICT), "loose": own(LOOSE)}, workers={}, networks={},
    )  # fmt: skip


ROUTES: dict[str, list[tuple[str, int, int, tuple[int, ...]]]] = {
    "at home": [("a", 0, 7, ())],
    "elsewhere": [("b", 0, 7, ())],
    "exits end stages": [("a", 0, 1, ()), ("b", 2, 4, ()), ("c", 5, 7, ())],
    "exits inside stages": [("b", 0, 2, ()), ("c", 3, 7, ())],
    "exits end sessions": [("b", 0, 2, (1, 2)), ("c", 3, 7, (4, 7))],
    "and back home": [("b", 0, 0, ()), ("a", 1, 6, ()), ("b", 7, 7, ())],
}


@pytest.fixture(scope="module", params=ROUTES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deployment, RunResult]:
    found, sent = instance(), {"strict": images(), "loose": images()}
    deployment = deploy(found, plan(*ROUTES[request.param]), {NAME: model()}, policy="planned", sent=sent)
    with agents_in_threads(found.workers, tmp_path_factory.mktemp("agents")) as coordinator:
        return deployment, coordinator.run(deployment, ready_timeout_s=60.0)


def test_every_sample_leaves_where_the_whole_model_is_sure_enough(run: tuple[Deployment, RunResult]) -> None:
    records = [record for record in run[1].records if isinstance(record, SampleRecord)]
    assert len(records) == 2 * SAMPLES
    taken = set()
    for record in records:
        assert record.origin is not None
        point = STRICT if record.source == "strict" else LOOSE
        assert (record.origin.model, record.origin.operating_point) == (NAME, point)
        assert (record.origin.exit or "output") == leaves(record.sample, point)
        taken.add((record.source, record.origin.exit))
    assert {("strict", "exit1"), ("strict", "exit2"), ("strict", None), ("loose", "exit1")} <= taken


def test_only_that_exits_result_comes_home_and_it_is_the_whole_models(run: tuple[Deployment, RunResult]) -> None:
    assert len(run[1].outputs) == 2 * SAMPLES
    for (source, sample), found in run[1].outputs.items():
        name = leaves(sample, STRICT if source == "strict" else LOOSE)
        assert list(found) == [name]
        np.testing.assert_allclose(found[name], expected()[sample][name], rtol=1e-4, atol=1e-5)


def test_no_block_behind_the_exit_is_run_and_nothing_large_is_sent(run: tuple[Deployment, RunResult]) -> None:
    records = run[1].records
    for source, point in (("strict", STRICT), ("loose", LOOSE)):
        for sample in range(SAMPLES):
            own = [r for r in records if not isinstance(r, SampleRecord) and (r.source, r.sample) == (source, sample)]
            cut = CUTS[leaves(sample, point)]
            ran = [block for r in own if isinstance(r, BlockRecord) for block in range(r.block, r.last + 1)]
            assert sorted(ran) == list(range(cut))
            for transfer in (r for r in own if isinstance(r, TransferRecord)):
                assert transfer.cut <= cut
                assert transfer.size_bytes == (40 if transfer.cut == cut else PROFILE.cut_bytes[transfer.cut])


def test_the_log_replayed_gives_the_same_decisions(run: tuple[Deployment, RunResult]) -> None:
    deployment, measurement = run
    for name, steps in measurement.steps.items():
        worker = Worker(name, deployment.instance, make_policy("planned", deployment.instance, deployment.plan))
        for step in steps:
            assert worker.step(step.now_s, step.event) == step.effects
