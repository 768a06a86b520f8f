"""The blocks in an agent's memory follow the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from planner.execution.agent import block_loader
from planner.execution.agent.block_loader import BlockLoader
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.warm_up import WarmUp
from planner.execution.wire.messages import Deploy
from planner.plan.types import PlanSpec, Stage
from planner.runtime.input_pool import input_pool
from planner.runtime.inputs import random_inputs
from tests.execution.rig import FILES, MODEL, small_deployment, small_instance, small_plan

FIRST = small_plan([("a", 0, 0), ("b", 1, 2)])
SECOND = small_plan([("a", 0, 1), ("c", 2, 2)])


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_loader, "_UNLOAD_PERIOD_S", 0.02)
    monkeypatch.setattr(block_loader, "_IDLE_S", 0.1)


def eventually(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def blocks(*files: bytes) -> ModelBlocks:
    cuts = tuple(tuple(tensor.name for tensor in cut.tensors) for cut in MODEL.chain.cuts)
    return ModelBlocks(cuts, files, provider="cpu", threads=1)


@contextmanager
def at_b(model: ModelBlocks, plan: PlanSpec, troubles: list[str]) -> Iterator[BlockLoader]:
    deployment = small_deployment(small_instance(), plan)
    deploy = Deploy(
        run="r", instance=deployment.instance, plan=plan, policy="planned", seed=3, models=dict(deployment.models),
        resident=dict(deployment.resident.get("b", {})), paced=False,
    )  # fmt: skip
    models, tensors = {"small": model}, random_inputs(MODEL.chain.cuts[1].tensors, np.random.default_rng(0))
    warm_up = WarmUp(models, {("small", 1): tensors}, troubles.append)
    kept = BlockLoader(
        "b", deploy, models, warm_up, on_problem=troubles.append, on_failure=lambda error: troubles.append(str(error))
    )
    try:
        yield kept
    finally:
        kept.close()


def test_blocks_of_a_new_plan_are_loaded_ahead_and_those_of_the_old_one_unloaded() -> None:
    model, troubles = blocks(*FILES), list[str]()
    with at_b(model, SECOND, troubles) as kept:
        kept.follow(FIRST)
        eventually(lambda: model.loaded == (1, 2))
        kept.follow(small_plan([("b", 2, 2)]))
        eventually(lambda: model.loaded == (2,))
    assert troubles == []


def test_a_new_plans_blocks_are_joined_and_then_not_there_twice() -> None:
    model, troubles = blocks(*FILES), list[str]()
    plan = small_plan([("b", 1, 2)])
    joined = Stage(worker="b", first_block=1, last_block=2, sessions=(2,))
    sources = {
        name: entry.model_copy(update={"routes": (entry.routes[0].model_copy(update={"stages": (joined,)}),)})
        for name, entry in plan.sources.items()
    }
    with at_b(model, SECOND, troubles) as kept:
        kept.follow(plan)
        eventually(lambda: model.sessions == {(1, 1), (2, 2)})
        kept.follow(plan.model_copy(update={"sources": sources}))
        eventually(lambda: model.sessions == {(1, 2)})
        assert model.loaded == (1, 2)
    assert troubles == []


def test_a_block_stays_loaded_while_samples_use_it() -> None:
    model = blocks(*FILES)
    inputs = input_pool(MODEL.chain.cuts[0].tensors, seed=0, source_index=0, samples=1)[0]
    with at_b(model, FIRST, []):
        until_s = time.monotonic() + 0.5
        expected = model.run(0, inputs)
        while time.monotonic() < until_s:
            assert all((model.run(0, inputs)[name] == tensor).all() for name, tensor in expected.items())
        eventually(lambda: model.loaded == ())
        assert set(model.run(0, inputs)) == set(expected)


def test_a_block_that_cannot_be_loaded_is_reported() -> None:
    model, troubles = blocks(FILES[0], b"no model", FILES[2]), list[str]()
    with at_b(model, SECOND, troubles) as kept:
        kept.follow(FIRST)
        eventually(lambda: len(troubles) == 1)
    assert troubles[0].startswith("a block of the new plan cannot be loaded: ")
