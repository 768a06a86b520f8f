"""Time per token of an urgent source while another one reads long prompts, relative to an idle system."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np

from benchmarks.execution.pipeline import balanced, plan_of
from benchmarks.tokens.rig import PROMPT, VOCABULARY, decoder, gaps_s, instance_of, session_on_this_host
from planner.cli.output import print_table
from planner.execution.session.source import SourceHandle
from planner.model.load import ChainModel
from planner.runtime.check import fill_sequence
from planner.runtime.processors import available_processors
from planner.runtime.runner import ChainRunner

BLOCKS: Final = 8
READERS: Final = 4
"""Long prompts that are read at a time."""
LONG: Final = 256
"""Tokens of a long prompt."""
CHUNK: Final = 16
TURNS: Final = 5
TOKENS: Final = 40
SETTLE_S: Final = 0.5
HOST: Final = "; this host limits: two busy agents and this program share its processors"


def urgent() -> None:
    """Print the times per token without other load, and under prompts that are read whole and in chunks, in turns."""
    model, profile = decoder(BLOCKS)
    instance = instance_of(profile, {"a": 1.0, "b": 1.0}, {"urgent": 8.0, "other": 1.0})
    plan = plan_of(instance, balanced(profile, 2))
    idle_s: list[float] = []
    loaded_s: dict[int | None, list[float]] = {None: [], CHUNK: []}
    read: dict[int | None, list[float]] = {None: [], CHUNK: []}
    with session_on_this_host(instance, plan, model) as session:
        source = session.source("urgent")
        _tpot_s(source)
        for _ in range(TURNS):
            idle_s.append(_tpot_s(source))
            for chunk, of_chunk in loaded_s.items():
                with reading(session.source("other"), READERS, LONG, chunk) as load:
                    time.sleep(SETTLE_S)
                    before, begin_s = load.tokens, time.monotonic()
                    of_chunk.append(_tpot_s(source))
                    read[chunk].append((load.tokens - before) / (time.monotonic() - begin_s))
    rows = [("nothing else", "-", f"{median(idle_s) * 1e3:.1f} ms", "-", "-", "-")]
    for chunk, of_chunk in loaded_s.items():
        block_s = longest_block_s(model, chunk or LONG)
        ratios = [(loaded - block_s) / idle for loaded, idle in zip(of_chunk, idle_s, strict=True)]
        rows.append(
            (
                f"prompts of {LONG}, {'whole' if chunk is None else f'in chunks of {chunk}'}",
                f"{median(read[chunk]):.0f} tokens/s",
                f"{median(of_chunk) * 1e3:.1f} ms",
                f"{median(loaded / idle for loaded, idle in zip(of_chunk, idle_s, strict=True)):.2f}",
                f"{block_s * 1e3:.1f} ms",
                f"{median(ratios):.2f}",
            )
        )
    print_table(
        f"Urgent time per token over two agents, beside {READERS} readers of low priority; median of {TURNS} turns "
        "(goal: less one block <= 1.3 of idle)"
        f"{HOST if len(available_processors()) < 3 else ''}",
        ("beside", ">read", ">per token", ">of idle", ">longest block", ">less one block, of idle"),
        rows,
    )


def _tpot_s(source: SourceHandle) -> float:
    generation = source.generate(PROMPT, max_new=TOKENS)
    list(generation)
    return float(np.mean(gaps_s(generation)))


@dataclass
class Load:
    """What readers have read."""

    tokens: int = 0
    errors: list[Exception] = field(default_factory=list)


@contextmanager
def reading(source: SourceHandle, readers: int, length: int, chunk: int | None) -> Iterator[Load]:
    """Let one long prompt after the other be read, several at a time."""
    load, over = Load(), threading.Event()

    def read(first: int) -> None:
        number = first
        while not over.is_set():
            prompt = [(number + token) % VOCABULARY for token in range(length)]
            try:
                list(source.generate(prompt, max_new=1, chunk=chunk))
            except Exception as error:  # noqa: BLE001 - raised in the main thread
                load.errors.append(error)
                return
            load.tokens += length
            number += readers

    threads = [threading.Thread(target=read, args=(reader,)) for reader in range(readers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if load.errors:
        raise load.errors[0]


def longest_block_s(model: ChainModel, chunk: int) -> float:
    """Return the median time of the block that takes longest on the last chunk of a long prompt, in seconds."""
    cuts = [[spec.name for spec in cut.tensors] for cut in model.chain.cuts]
    runner = ChainRunner(cuts)
    for block in range(len(model.chain)):
        runner.load(block, model.block_model(block))
    times_s = np.zeros((3, len(model.chain)))
    for turn, of_turn in enumerate(times_s):
        for tensors in fill_sequence(model.chain, list(range(LONG)), [chunk] * (LONG // chunk), number=turn):
            alive = dict(tensors)
            for block in range(len(model.chain)):
                begin_s = time.monotonic()
                alive = runner.run_segment(block, block, alive)
                of_turn[block] = time.monotonic() - begin_s
    return float(np.median(times_s, axis=0).max())
