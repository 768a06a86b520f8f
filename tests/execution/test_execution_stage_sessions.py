"""Blocks of a stage that run as one session on an agent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.warm_up import WarmUp
from planner.execution.coordinator.run_result import RunResult
from planner.plan.types import PlanSpec, Stage
from planner.profiling.types import ExitPoint
from planner.runtime.input_pool import input_pool
from planner.runtime.session import BlockSession
from planner.trace.records import BlockRecord
from tests.execution.rig import BLOCKS, FILES, MODEL, agents_in_threads, small_deployment, small_instance, small_plan

CUTS = tuple(tuple(tensor.name for tensor in cut.tensors) for cut in MODEL.chain.cuts)
WHOLE = (0, BLOCKS - 1)
INPUTS = input_pool(MODEL.chain.cuts[0].tensors, seed=0, source_index=0, samples=1)[0]
EXPECTED = BlockSession(MODEL.model_bytes(), optimise=False).run(INPUTS)


def with_sessions(plan: PlanSpec, *sessions: tuple[int, ...]) -> PlanSpec:
    """Return a plan whose routes' stages have these sessions, in turn."""

    def joined(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(Stage(**(old.model_dump() | {"sessions": own})) for old, own in zip(stages, sessions, strict=True))

    sources = {
        name: entry.model_copy(
            update={"routes": tuple(r.model_copy(update={"stages": joined(r.stages)}) for r in entry.routes)}
        )
        for name, entry in plan.sources.items()
    }
    return plan.model_copy(update={"sources": sources})


def in_files(folder: Path) -> ModelBlocks:
    paths = [folder / f"{index}.onnx" for index in range(BLOCKS)]
    for path, data in zip(paths, FILES, strict=True):
        path.write_bytes(data)
    return ModelBlocks(CUTS, tuple(paths), provider="cpu", threads=1)


def equal(found: dict[str, np.ndarray]) -> bool:
    return all(np.allclose(found[name], tensor, rtol=1e-5) for name, tensor in EXPECTED.items())


@pytest.mark.parametrize("kept", ["in files", "in memory"])
def test_blocks_run_one_by_one_until_their_session_is_there_and_are_then_in_memory_once(
    kept: str, tmp_path: Path
) -> None:
    blocks = in_files(tmp_path) if kept == "in files" else ModelBlocks(CUTS, tuple(FILES), provider="cpu", threads=1)
    assert equal(blocks.run(0, INPUTS, BLOCKS - 1))
    assert blocks.sessions == {(block, block) for block in range(BLOCKS)}
    blocks.need("another run", [(1, 1)])
    blocks.load(*WHOLE)
    assert blocks.sessions == {WHOLE, (1, 1)}
    assert equal(blocks.run(0, INPUTS, BLOCKS - 1))
    assert blocks.sessions == {WHOLE, (1, 1)}
    assert list(tmp_path.glob("joined*")) == []


def test_work_that_comes_while_a_session_is_made_waits_for_it_rather_than_for_its_blocks(tmp_path: Path) -> None:
    blocks = in_files(tmp_path)
    making, go_on = threading.Event(), threading.Event()
    model = blocks._model

    @contextmanager
    def slowly(first: int, last: int) -> Iterator[Path | bytes]:
        making.set()
        go_on.wait(10.0)
        with model(first, last) as found:
            yield found

    blocks._model = slowly  # type: ignore[method-assign]
    maker = threading.Thread(target=blocks.load, args=WHOLE)
    maker.start()
    making.wait(10.0)
    threading.Timer(0.1, go_on.set).start()
    assert equal(blocks.run(0, INPUTS, BLOCKS - 1))
    maker.join()
    assert blocks.sessions == {WHOLE}


def test_blocks_that_cannot_be_joined_are_loaded_one_by_one_and_that_is_said_once() -> None:
    leave = ExitPoint(name="t1", cut=1, result_bytes=4)
    blocks = ModelBlocks(CUTS, tuple(FILES), [leave], provider="cpu", threads=1)
    with pytest.raises(ExecuteError, match="an exit ends a session"):
        blocks.load(*WHOLE)
    said = list[str]()
    assert WarmUp({"small": blocks}, {("small", 0): INPUTS}, said.append).warm_up("small", 0, last=BLOCKS - 1) > 0
    assert said == [
        "blocks 0 to 2 of small run one by one, as they cannot be joined: blocks 0 to 2: an exit ends a session"
    ]
    assert blocks.sessions == {(block, block) for block in range(BLOCKS)}
    assert equal(blocks.run(0, INPUTS, BLOCKS - 1))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, RunResult]:
    """Results of the same samples on the same routes, block by block and in sessions."""
    instance, plan = small_instance(), small_plan([("b", 0, 1), ("c", 2, 2)])
    with agents_in_threads(instance.workers, tmp_path_factory.mktemp("agents")) as coordinator:
        return tuple(
            coordinator.run(small_deployment(instance, each), ready_timeout_s=60.0)
            for each in (plan, with_sessions(plan, (1,), (2,)))
        )  # type: ignore[return-value]


def test_agents_run_the_sessions_of_the_plan_with_the_same_outputs(runs: tuple[RunResult, RunResult]) -> None:
    ran = [{(r.worker, r.block, r.last) for r in run.records if isinstance(r, BlockRecord)} for run in runs]
    assert ran == [{("b", 0, 0), ("b", 1, 1), ("c", 2, 2)}, {("b", 0, 1), ("c", 2, 2)}]
    assert runs[0].outputs.keys() == runs[1].outputs.keys()
    assert len(runs[0].outputs) == 24
    for key, outputs in runs[0].outputs.items():
        for name, tensor in outputs.items():
            np.testing.assert_allclose(runs[1].outputs[key][name], tensor, rtol=1e-5)
    assert [run.incidents for run in runs] == [[], []]
