"""Tokens per second of several sequences on one worker, and on two with half of the model each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Final

from benchmarks.execution.pipeline import balanced, plan_of
from benchmarks.tokens.overhead import processor_s
from benchmarks.tokens.rig import decoder, instance_of, session_on_this_host, side_by_side
from planner.cli.output import print_table
from planner.execution.session.generation import Generation
from planner.execution.session.source import SourceHandle
from planner.runtime.processors import available_processors
from tests.execution.processes import agents

BLOCKS: Final = 8
PROMPT: Final = (5, 6, 7, 8)
TOKENS: Final = 24
SEQUENCES: Final = (1, 4, 8)
TURNS: Final = 3
SLOW: Final = 0.3
"""Speed of workers whose time is the scenario's, not this host's."""


def two_workers() -> None:
    """Compare the tokens per second of one worker and of two, in turns, by the number of sequences at a time."""
    model, profile = decoder(BLOCKS)
    rows = []
    for speed in (SLOW, 1.0):
        one, two = (instance_of(profile, dict.fromkeys(names, speed)) for names in ("a", "ab"))
        border = balanced(profile, 2)
        block_s = two.block_s(profile.model.name, "a")
        most = float(block_s.sum() / max(block_s[: border[0]].sum(), block_s[border[0] :].sum()))
        plans = ((one, plan_of(one, [])), (two, plan_of(two, border)))
        rates: dict[int, list[tuple[float, float]]] = {count: [] for count in SEQUENCES}
        busy: dict[int, list[float]] = {count: [] for count in SEQUENCES}
        with ExitStack() as stack:
            sides: list[tuple[SourceHandle, frozenset[int]]] = []
            for instance, plan in plans:
                before = frozenset(agents())
                session = stack.enter_context(session_on_this_host(instance, plan, model, paced=speed < 1))
                sides.append((session.source("s"), frozenset(agents()) - before))
                list(sides[-1][0].generate(PROMPT, max_new=5))
            for count in SEQUENCES * TURNS:
                (single, single_s), (double, double_s) = (_measure(*side, count) for side in sides)
                rates[count].append((single, double))
                busy[count].append(single_s / double_s)
        for count, of_count in rates.items():
            rows.append(
                (
                    "paced" if speed < 1 else "own speed",
                    str(count),
                    f"{median(single for single, _ in of_count):.1f}",
                    f"{median(double for _, double in of_count):.1f}",
                    f"{median(double / single for single, double in of_count):.2f}",
                    f"{most:.2f}",
                    f"{median(busy[count]):.2f}" if speed == 1 else "-",
                )
            )
    processors = len(available_processors())
    print_table(
        f"Tokens/s of a {len(model.chain)}-block GPT-2 on one worker and on two, each on one processor; median of "
        f"{TURNS} turns (goal: >= 1.8 times with 4 or more sequences"
        f"{'; at their own speed the agents share the processors with this program' if processors < 3 else ''})",
        ("agents", ">sequences", ">one", ">two", ">ratio", ">by the slower stage", ">by processor time"),
        rows,
    )


def _measure(source: SourceHandle, processes: Collection[int], count: int) -> tuple[float, float]:
    """Return the tokens per second of some sequences, and the processor time of a token at the busiest agent."""
    before_s = {process: processor_s(process) for process in processes}
    found = side_by_side(source, count, PROMPT, TOKENS)
    tokens = sum(len(generation.tokens) for generation in found)
    return rate_per_s(found), max(processor_s(process) - before_s[process] for process in processes) / tokens


def rate_per_s(generations: Sequence[Generation]) -> float:
    """Return the tokens per second while all sequences ran."""
    times_s = [[one.begin_s + at_s for at_s in one.times_s] for one in generations]
    begin_s, end_s = max(own[0] for own in times_s), min(own[-1] for own in times_s)
    return sum(begin_s < at_s <= end_s for own in times_s for at_s in own) / (end_s - begin_s)
