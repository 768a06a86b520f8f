"""Samples that agents run as batches."""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np

from planner.execution.agent.executor import BlockJob, BlockResult, Executor
from planner.execution.agent.model_blocks import Held, ModelBlocks
from planner.execution.coordinator.deployment import deploy
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.policy.types import SampleKey
from planner.runtime.input_pool import input_pool
from planner.runtime.session import BlockSession
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord
from planner.worker.events import RunBlock
from tests.execution.rig import agents_in_threads
from tests.instances import linear_batches, make_instance, make_profile
from tests.model.batch_models import TOKENS, small_model

MODEL = small_model()
BLOCKS = len(MODEL.chain)
FILES = tuple(MODEL.block_model(index) for index in range(BLOCKS))
CUTS = tuple(tuple(tensor.name for tensor in cut.tensors) for cut in MODEL.chain.cuts)
WHOLE = BlockSession(MODEL.model_bytes(), optimise=False)


def pipeline(*sessions: tuple[int, ...]) -> tuple[Instance, PlanSpec]:
    """Two workers, each with some blocks, and two sources whose samples are all there at the start."""
    profile = make_profile(
        "prompts",
        block_s=[0.002] * BLOCKS,
        cut_bytes=[cut.bytes for cut in MODEL.chain.cuts],
        batches=linear_batches(BLOCKS, 0.8),
    )
    keys = {"worker": "a", "models": ["prompts"], "samples": 20, "arrivals": "batch", "max_batch": 4}
    instance = make_instance(
        profiles=[profile],
        workers={"a": 1.0, "b": 1.0},
        sources={"urgent": {**keys, "priority": 8.0}, "other": {**keys, "priority": 1.0}},
    )
    stages = (
        Stage(worker="a", first_block=0, last_block=0),
        Stage(worker="b", first_block=1, last_block=BLOCKS - 1, sessions=sessions[0] if sessions else ()),
    )
    source = SourcePlan(
        accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="prompts", stages=stages),)
    )
    plan = PlanSpec(
        status="optimal", method="test", goal="delay", objective=1.0, bound=1.0, gap=0.0, solve_s=0.0,
        provenance="measured", sources={"urgent": source, "other": source}, workers={}, networks={},
    )  # fmt: skip
    return instance, plan


def check_run(instance: Instance, plan: PlanSpec, folder: Path) -> None:
    """Run on agents in threads; check that samples ran together and came out as of the whole model."""
    with agents_in_threads(("a", "b"), folder) as coordinator:
        deployment = deploy(instance, plan, {"prompts": MODEL}, policy="planned", seed=3)
        run = coordinator.run(deployment, ready_timeout_s=60.0)
    blocks = [record for record in run.records if isinstance(record, BlockRecord)]
    assert max(record.batch for record in blocks if record.worker == "a") == 4
    assert max(record.batch for record in blocks if record.worker == "b") > 1
    assert len(run.outputs) == 40
    together: dict[tuple[str, int, float], list[BlockRecord]] = {}
    for record in blocks:
        together.setdefault((record.worker, record.block, record.start_s), []).append(record)
    assert all(len(found) == found[0].batch for found in together.values())
    assert all(len({record.source for record in found}) == 1 for found in together.values())  # of one priority
    for index, source in enumerate(instance.sources):
        pool = input_pool(MODEL.chain.cuts[0].tensors, seed=3, source_index=index, samples=20)
        for sample in range(20):
            expected = WHOLE.run(pool[sample % len(pool)])["logits"]
            np.testing.assert_allclose(run.outputs[source, sample]["logits"], expected, rtol=1e-4, atol=1e-6)


def test_agents_run_batches_with_the_outputs_of_the_whole_model(tmp_path: Path) -> None:
    check_run(*pipeline(), tmp_path)


def test_joined_blocks_run_batches_too(tmp_path: Path) -> None:
    check_run(*pipeline((BLOCKS - 1,)), tmp_path)


def test_a_bad_sample_fails_its_batch_with_a_reason_and_no_good_one_alone() -> None:
    found: queue.SimpleQueue[BlockResult] = queue.SimpleQueue()
    failures: list[Exception] = []
    executor = Executor({"m": ModelBlocks(CUTS, FILES, provider="cpu", threads=1)}, found.put, failures.append)
    good: Held = {"input_ids": np.ones((1, TOKENS), np.int64)}
    bad: Held = {"input_ids": np.ones((1, TOKENS + 1), np.int64)}
    keys = [SampleKey("s", sample, 0) for sample in range(3)]

    def run(*samples: Held) -> BlockResult:
        effect = RunBlock(
            keys[0], "m", 0, begins_stage=True, last_block=BLOCKS - 1, others=tuple(keys[1 : len(samples)])
        )
        executor.submit(BlockJob(effect, samples, 0.0, None))
        return found.get(timeout=30.0)

    failed = run(good, bad, good)
    assert failed.tensors is None
    assert "samples that differ cannot run together" in failed.reason
    ended = run(good, good, good)
    assert ended.tensors is not None
    assert [tensors["logits"].shape for tensors in ended.tensors] == [(1, TOKENS, 50)] * 3
    assert len(ended.times) == BLOCKS
    executor.close()
    executor.join()
    assert not failures
