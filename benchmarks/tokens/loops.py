"""Time per token where tokens are fed back at home, and at the worker of the last block."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from statistics import mean, median
from typing import Final, Literal

from benchmarks.execution.pipeline import line
from benchmarks.tokens.rig import NAME, PROMPT, decoder, gaps_s, session_on_this_host
from planner.cli.output import print_table
from planner.plan.evaluate import evaluate
from planner.plan.types import PlanSpec, Route, Stage
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance

BLOCKS: Final = 4
TOKENS: Final = 40
TURNS: Final = 5
LATENCY_S: Final = 0.01
SPEED: Final = 0.3
"""Speed of workers, whose time is the scenario's."""
ROUTES: Final = {"one worker": ["a"] * BLOCKS, "two workers": ["a", "a", "b", "b"]}
PLACES: Final[tuple[Literal["home", "last"], ...]] = ("home", "last")


def loops() -> None:
    """Compare the times of both places, in turns, on an emulated network, with what is predicted."""
    model, profile = decoder(BLOCKS)
    decode = DecodeSpec(prompt=len(PROMPT), max_new=TOKENS)
    source = {"arrivals": "batch", "samples": 10, "rate_per_s": 1e-6, "decode": decode}
    instance = line(profile, dict.fromkeys(("home", "a", "b"), SPEED), {"s": source}, latency_s=LATENCY_S)
    rows = []
    for name, workers in ROUTES.items():
        plans = [_plan(instance, workers, loop) for loop in PLACES]
        steps_s: list[tuple[float, float]] = []
        with ExitStack() as stack:
            sides = [
                stack.enter_context(session_on_this_host(instance, plan, model, paced=True)).source("s")
                for plan in plans
            ]
            for side in sides:
                list(side.generate(PROMPT, max_new=TOKENS))
            for _ in range(TURNS):
                found = [side.generate(PROMPT, max_new=TOKENS) for side in sides]
                home, last = (mean(gaps_s(one)) for one in found if list(one))
                if found[0].tokens != found[1].tokens:
                    raise AssertionError(f"{found[1].tokens} are not {found[0].tokens}")
                steps_s.append((home, last))
        predicted = [plan.sources["s"].tpot_s or 0.0 for plan in plans]
        at_home, at_last = (median(own) for own in zip(*steps_s, strict=True))
        rows.append(
            (
                name,
                f"{at_home * 1e3:.1f} ms",
                f"{at_last * 1e3:.1f} ms",
                f"{median(home / last for home, last in steps_s):.2f}",
                f"{predicted[0] / predicted[1]:.2f}",
            )
        )
    print_table(
        f"Time per token with blocks away from home, over links of {LATENCY_S * 1e3:g} ms; median of {TURNS} turns, "
        "by where tokens are fed back",
        ("blocks on", ">home", ">last block's worker", ">ratio", ">predicted"),
        rows,
    )


def _plan(instance: Instance, workers: list[str], loop: Literal["home", "last"]) -> PlanSpec:
    cuts = [0, *(cut for cut in range(1, BLOCKS) if workers[cut] != workers[cut - 1]), BLOCKS]
    stages = tuple(Stage(worker=workers[first], first_block=first, last_block=end - 1) for first, end in pairwise(cuts))
    found = evaluate(instance, {"s": (Route(model=NAME, stages=stages, loop=loop),)})
    return PlanSpec(
        status="feasible", method="benchmark", goal="delay", objective=found.objective, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=found.sources, workers=found.workers, networks=found.networks,
    )  # fmt: skip
