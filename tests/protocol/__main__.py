"""``python -m tests.protocol [--policy NAME]``: explore every small run, and print how many states there are."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Final, get_args

import typer

from planner.plan.types import PlanSpec, Route, SourcePlan, Stage, WorkerUse
from planner.scenario.instance import Instance
from tests.instances import make_instance, make_profile
from tests.protocol.explore import Exploration, Explored, Failure, TooManyStatesError

HAND_OVER: Final = ("planned", "adaptive", "ddi", "mdi", "ar-mdi", "ms-mdi", "pa-mdi")
"""Policies under which a sample may leave its home."""

FAILURES: Final[tuple[Failure, ...]] = get_args(Failure)


def small_run(*, sources: int = 1, workers: int = 2, samples: int = 2) -> tuple[Instance, PlanSpec]:
    """Return two workers, two blocks and two samples: of one source at the slow worker, or one of each worker."""
    names = ["slow", "fast", "other"][:workers]
    instance = make_instance(
        profiles=[make_profile(block_s=[0.01, 0.01], cut_bytes=[1000, 500, 40])],
        workers=dict(zip(names, (1.0, 4.0, 2.0), strict=False)),
        sources={
            f"s{index}": {
                "worker": names[index],
                "rate_per_s": 5.0,
                "priority": 1.0 + index,
                "samples": samples // sources,
            }
            for index in range(sources)
        },
    )
    plans = {}
    for index, source in enumerate(instance.sources):
        route = (names[index], names[(index + 1) % len(names)])
        stages = tuple(Stage(worker=name, first_block=block, last_block=block) for block, name in enumerate(route))
        plans[source] = SourcePlan(
            accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=(Route(model="m", stages=stages),)
        )
    plan = PlanSpec(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=plans, networks={},
        workers=dict.fromkeys(names, WorkerUse(utilisation=0.5, memory_bytes=0)),
    )  # fmt: skip
    return instance, plan


def explore(policy: str, failure: Failure, *, sources: int = 1, workers: int = 2, samples: int = 2) -> Explored:
    """Explore a small run."""
    instance, plan = small_run(sources=sources, workers=workers, samples=samples)
    return Exploration(instance, policy, plan, failure).run()


def main() -> None:
    """Explore all."""
    parser = ArgumentParser(prog="python -m tests.protocol", description=__doc__)
    parser.add_argument("--policy", action="append", choices=HAND_OVER, help="only this one; repeatable")
    parser.add_argument("--failure", action="append", choices=FAILURES, help="only this one; repeatable")
    parser.add_argument("--sources", type=int, choices=(1, 2), action="append", help="only so many; repeatable")
    parser.add_argument("--most", type=int, default=300_000, help="states after which a run is left (300000)")
    given = parser.parse_args()
    for policy in given.policy or HAND_OVER:
        for sources in given.sources or (1, 2):
            for failure in given.failure or FAILURES:
                instance, plan = small_run(sources=sources)
                start_s = time.process_time()
                try:
                    found = Exploration(instance, policy, plan, failure).run(given.most)
                    told = (
                        f"{found.states} states, {found.transitions} transitions, {found.ends} ends, "
                        f"{found.local_states} states of workers"
                    )
                except TooManyStatesError as error:
                    told = str(error)
                spent_s = time.process_time() - start_s
                typer.echo(f"{policy}, {sources} source(s), failure {failure}: {told}, {spent_s:.1f} s")


if __name__ == "__main__":
    main()
