"""A few-layer GPT-2 with caches on agents of this host, and what onnxruntime alone does with it."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.execution.pipeline import line
from planner.execution.coordinator.deployment import deploy
from planner.execution.launch.setting import on_this_host
from planner.execution.session.generation import Generation
from planner.execution.session.session import LiveSession
from planner.execution.session.source import SourceHandle
from planner.model.decoders import gpt2_with_cache
from planner.model.load import ChainModel, load_chain
from planner.plan.types import PlanSpec
from planner.profiling.measure import measure
from planner.profiling.types import Profile
from planner.runtime.session import SESSION_CONFIG
from planner.scenario.instance import Instance

WIDTH, LAYERS, HEADS, VOCABULARY = 512, 4, 8, 2000
"""A step reads 60 MB of weights, which takes about 5 ms on one processor."""
PROMPT: Final = tuple(range(5, 21))
PROFILING_S: Final = 6.0
NAME: Final = "gpt2"


@lru_cache
def decoder(blocks: int, layers: int = LAYERS, width: int = WIDTH) -> tuple[ChainModel, Profile]:
    """Return a GPT-2 with caches, in that many blocks, and its profile on this machine."""
    path = _folder() / f"gpt2-{layers}x{width}.onnx"
    if not path.exists():
        gpt2_with_cache(path, layers=layers, width=width, heads=HEADS, vocabulary=VOCABULARY)
    axes = {"sequence_length": 1, "past_sequence_length": 64}
    model = load_chain(path, name=NAME, max_blocks=blocks, axes=axes)
    return model, measure(model, device_class="here", budget_s=PROFILING_S)


@lru_cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="planner-bench-"))


def instance_of(
    profile: Profile, speeds: Mapping[str, float], priorities: Mapping[str, float] | None = None
) -> Instance:
    """Return an instance with all sources at the first worker, on a fast network."""
    sources: Mapping[str, Mapping[str, Any]] = {
        name: {"arrivals": "batch", "samples": 10, "priority": priority}
        for name, priority in (priorities or {"s": 1.0}).items()
    }
    return line(profile, speeds, sources)


@contextmanager
def session_on_this_host(
    instance: Instance, plan: PlanSpec, model: ChainModel, *, paced: bool = False, limit: int = 16
) -> Iterator[LiveSession]:
    """Run a session with one agent process per worker, each on a processor of its own where there are enough."""
    setting = on_this_host(instance, paced=paced)
    deployment = deploy(
        instance, plan, {NAME: model}, policy="planned", paced=paced, emulation=setting.emulation, live=True
    )
    with LiveSession(deployment, setting.agents, limit=limit) as session:
        yield session


class Alone:
    """The whole model in one onnxruntime session with one thread, and a loop that feeds its choice back."""

    def __init__(self, model: ChainModel) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        for key, value in SESSION_CONFIG.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._past = {
            argument.name: [length if isinstance(length, int) else 0 for length in argument.shape]
            for argument in self._session.get_inputs()
            if argument.name.startswith("past")
        }

    def generate(self, prompt: Sequence[int], max_new: int) -> tuple[list[int], float]:
        """Return the likeliest tokens, and the mean time of a step in seconds."""
        known, fresh = list(prompt), len(prompt)
        state: dict[str, NDArray[Any]] = {name: np.zeros(shape, np.float32) for name, shape in self._past.items()}
        times_s = []
        for _ in range(max_new):
            begin_s = time.perf_counter()
            total = len(known)
            given = {
                "input_ids": np.array([known[total - fresh :]]),
                "position_ids": np.arange(total - fresh, total)[None],
                "attention_mask": np.ones((1, total), np.int64),
            }
            made = dict(zip(self._outputs, self._session.run(self._outputs, given | state), strict=True))
            state = {name: made[name.replace("past_key_values", "present")] for name in state}
            known.append(int(made["logits"][0, -1].argmax()))
            fresh = 1
            times_s.append(time.perf_counter() - begin_s)
        return known[len(prompt) :], mean(times_s[1:])


def gaps_s(generation: Generation) -> list[float]:
    """Return the times between tokens, in seconds."""
    return np.diff(generation.times_s).tolist()


def side_by_side(source: SourceHandle, sequences: int, prompt: Sequence[int], max_new: int) -> list[Generation]:
    """Generate several sequences at once, each in a thread of its own."""
    running = [source.generate(prompt, max_new=max_new) for _ in range(sequences)]
    threads = [threading.Thread(target=list, args=(generation,)) for generation in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return running
