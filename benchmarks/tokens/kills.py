"""Tokens of many sequences while agents are killed, against those of one onnxruntime session."""

from __future__ import annotations

import dataclasses
import queue
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import deploy
from planner.execution.coordinator.run_result import Observer
from planner.execution.session.session import LiveSession
from planner.execution.session.source import SampleError, SourceHandle
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import zenoh_connect
from planner.plan.types import PlanSpec, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from tests.execution.processes import Processes
from tests.instances import make_instance, make_profile
from tests.model.decoder_models import continued, export

Loop: TypeAlias = Literal["home", "last"]

SEQUENCES: Final = 1000
KILLS: Final = 20
SIDE_BY_SIDE: Final = 8
CASES: Final = 40
"""Number of unlike prompts."""
_PATIENCE_S: Final = 120.0
_BLOCKS: Final = 4


@dataclass
class Outcome:
    """What became of the sequences."""

    exact: int = 0
    wrong: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    restarts: int = 0
    restarted: int = 0
    kills: int = 0


class _Joins(Observer):
    """Tells when a worker is there again."""

    def __init__(self) -> None:
        self.present = threading.Event()
        self.present.set()

    def on_joined(self, worker: str) -> None:  # noqa: ARG002
        self.present.set()


def kills(sequences: int = SEQUENCES, deaths: int = KILLS) -> None:
    """Print how many sequences were exact."""
    for loop in get_args(Loop):
        begin_s = time.monotonic()
        found = generate_under_kills(sequences, deaths, loop)
        print(
            f"{sequences} sequences, tokens fed back at {loop}, {found.kills} agents killed (goal: all exact): "
            f"{found.exact} exact, {found.wrong} wrong, {found.failed.total()} failed {dict(found.failed) or ''}; "
            f"{found.tokens} tokens, {found.restarted} sequences started again, {found.restarts} times in all; "
            f"{time.monotonic() - begin_s:.0f} s"
        )


def generate_under_kills(sequences: int, deaths: int, loop: Loop = "last") -> Outcome:
    """Generate sequences over three agents of which two are killed by turns, ``deaths`` in all.

    Parameters
    ----------
    loop
        Where tokens are fed back.
    """
    instance, plan = _setting(loop)
    joins = _Joins()
    models = {"llama": export("llama-fp32", _BLOCKS)}
    deployment = dataclasses.replace(deploy(instance, plan, models, policy="planned", live=True), paced=True)
    with tempfile.TemporaryDirectory() as folder:
        agents = Processes(instance.workers, Path(folder))
        agents.complete()
        try:
            with Coordinator(zenoh_connect(COORDINATOR, listen=agents.address, connect=[])) as coordinator:
                coordinator.await_agents(instance.workers, _PATIENCE_S)
                session = LiveSession(
                    deployment,
                    nullcontext(coordinator),
                    limit=SIDE_BY_SIDE,
                    observer=joins,
                    ready_timeout_s=_PATIENCE_S,
                )
                with session:
                    generating = _Generating(session.source("s"), sequences)
                    while generating.outcome.kills < deaths and generating.goes_on:
                        due = generating.ended >= (generating.outcome.kills + 1) * sequences // (deaths + 1)
                        if due and joins.present.wait(_PATIENCE_S):
                            joins.present.clear()
                            name = "bc"[generating.outcome.kills % 2]
                            agents.kill(name)
                            agents.start(name)
                            generating.outcome.kills += 1
                        time.sleep(0.01)
                    generating.join()
                    joins.present.wait(_PATIENCE_S)
        finally:
            agents.close()
    return generating.outcome


class _Generating:
    """Generates sequences in several threads."""

    def __init__(self, source: SourceHandle, sequences: int) -> None:
        self.outcome = Outcome()
        self.ended = 0
        self._source = source
        self._cases = _cases()
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(sequences):
            self._numbers.put(number)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work) for _ in range(SIDE_BY_SIDE)]
        for thread in self._threads:
            thread.start()

    @property
    def goes_on(self) -> bool:
        """Whether some sequence has not ended."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait for the end of all sequences."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._generate(self._numbers.get_nowait())

    def _generate(self, number: int) -> None:
        prompt, tokens = self._cases[number % len(self._cases)]
        generation = self._source.generate(prompt, max_new=len(tokens), chunk=(None, 2)[number % 2])
        try:
            right, reason = list(generation) == tokens, ""
        except SampleError as error:
            right, reason = False, error.reason
        with self._lock:
            self.ended += 1
            self.outcome.exact += right
            self.outcome.wrong += not right and not reason
            self.outcome.failed.update([reason] if reason else [])
            self.outcome.tokens += len(generation.tokens)
            self.outcome.restarts += generation.restarts
            self.outcome.restarted += generation.restarts > 0


def _cases() -> list[tuple[list[int], list[int]]]:
    """Return prompts, and what one onnxruntime session generates after each."""
    random, model = np.random.default_rng(0), export("llama-fp32", 1)
    cases = []
    for number in range(CASES):
        prompt = random.integers(0, 256, random.integers(1, 12)).tolist()
        cases.append((prompt, continued(model, prompt, int(random.integers(4, 16)), number)[0]))
    return cases


def _setting(loop: Loop) -> tuple[Instance, PlanSpec]:
    cut_bytes = [cut.bytes for cut in export("llama-fp32", _BLOCKS).chain.cuts]
    instance = make_instance(
        profiles=[make_profile("llama", block_s=[0.001] * _BLOCKS, cut_bytes=cut_bytes)],
        workers=dict.fromkeys("abc", 1.0),
        sources={"s": {"rate_per_s": 10.0, "worker": "a"}},
    )
    stages = (
        Stage(worker="a", first_block=0, last_block=0),
        Stage(worker="b", first_block=1, last_block=2),
        Stage(worker="c", first_block=3, last_block=3),
    )
    own = SourcePlan(
        accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="llama", stages=stages, loop=loop),)
    )
    plan = PlanSpec(
        status="feasible", method="benchmark", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources={"s": own}, workers={}, networks={},
    )  # fmt: skip
    return instance, plan
