"""Which assumptions about the paper's testbed and policies bring all six figures near: a random search.

python examples/ms-mdi/search.py [--count N] [--seed S] [--share PART]

Beside the free parameters of ``run.py`` it draws how γ of equation (1) is read: ``measured``, what each worker's own
tasks take per parameter, as in our ``ar-mdi`` and ``ms-mdi``; or ``device``, a property of the device, equal for the
paper's equal workers, so that all segments have equal shares of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Annotated, Final, NamedTuple

import numpy as np
import typer
from run import NEAR, PAPER, PROCESSES, QUICK, SET_UPS, Counter, Free, Outcomes, gains, in_order, set_up

from planner.cli.output import print_table, progress_bar
from planner.policy.ar_mdi import ArMdi, Mdi
from planner.policy.ms_mdi import MsMdi
from planner.policy.routed import Local
from planner.policy.types import Policy, View
from planner.simulation.simulator import Simulator

SHOWN: Final = 5


class Assumptions(NamedTuple):
    """The free parameters, and how the policies are read."""

    free: Free
    by_device: bool
    reservoir_limit: int
    literal: bool

    def __str__(self) -> str:
        """Describe them in a line."""
        free = self.free
        return (
            f"{1e3 * free.image_s:.0f} ms, {free.bandwidth_bytes_per_s / 125e3:.0f} Mbit/s, "
            f"{'' if free.overlap else 'no '}overlap, γ {'of the device' if self.by_device else 'measured'}, "
            f"limit {self.reservoir_limit}{', eq. (2) as printed' if self.literal else ''}"
        )


class DeviceMsMdi(MsMdi):
    """``ms-mdi`` where all workers have the same γ."""

    def per_parameter_s(self, view: View, source: str, worker: str) -> float:  # noqa: ARG002
        """Return the same for all."""
        return 1.0


def draw(random: np.random.Generator) -> Assumptions:
    """Draw 120 to 500 ms an image and 8 to 100 Mbit/s, log-uniform, and the rest with equal chances."""
    free = Free(
        image_s=float(np.exp(random.uniform(np.log(0.12), np.log(0.5)))),
        bandwidth_bytes_per_s=float(np.exp(random.uniform(np.log(8), np.log(100)))) * 125e3,
        overlap=bool(random.random() < 0.5),
    )
    return Assumptions(free, bool(random.random() < 0.5), int(random.integers(1, 7)), bool(random.random() < 0.2))


def outcomes(assumed: Assumptions, share: float) -> Outcomes:
    """Simulate all set-ups under the paper's three policies."""
    ms_mdi = DeviceMsMdi if assumed.by_device else MsMdi
    policies: dict[str, Callable[[], Policy]] = {
        "local": partial(Local),
        "ar-mdi": partial(Mdi if assumed.by_device else ArMdi),
        "ms-mdi": partial(ms_mdi, reservoir_limit=assumed.reservoir_limit, literal=assumed.literal),
    }
    found = {}
    for workers in SET_UPS:
        instance = set_up(workers, share, assumed.free)
        for name, make in policies.items():
            counter = Counter(sum(instance.samples(source) for source in instance.sources))
            Simulator(instance, policy=name, plan=None, seed=0, sink=counter.take, make=make).run()
            found[workers, name] = counter.outcome()
    return found


def main(
    count: Annotated[int, typer.Option(help="How many choices to try.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the choices.")] = 0,
    share: Annotated[float, typer.Option(help="Share of the images.")] = QUICK,
) -> None:
    """Try random assumptions; print those with the least largest miss, and how many have all six figures near."""
    random = np.random.default_rng(seed)
    tried = [draw(random) for _ in range(count)]
    with ProcessPoolExecutor(PROCESSES) as pool, progress_bar() as progress:
        futures = [pool.submit(outcomes, assumed, share) for assumed in tried]
        found = [
            (assumed, gains(future.result()))
            for assumed, future in progress.track(zip(tried, futures, strict=True), total=count, description="trying")
        ]

    def largest_miss(figures: dict[tuple[int, str], float]) -> float:
        return max(abs(figures[case] - wanted) for case, wanted in PAPER.items())

    found.sort(key=lambda pair: largest_miss(pair[1]))
    print_table(
        f"{sum(largest_miss(figures) <= NEAR for _, figures in found)} of {count} have all six figures within "
        f"{100 * NEAR:.0f} points; the {SHOWN} nearest",
        ("assumed", *(f">{workers}, {policy}" for workers, policy in PAPER), ">largest miss", "order"),
        [
            ("the paper", *(f"{wanted:.0%}" for wanted in PAPER.values()), "", ""),
            *(
                (
                    str(assumed),
                    *(f"{figures[case]:.0%}" for case in PAPER),
                    f"{100 * largest_miss(figures):.0f} points",
                    "as in the paper" if in_order(figures) else "another",
                )
                for assumed, figures in found[:SHOWN]
            ),
        ],
    )


if __name__ == "__main__":
    typer.run(main)
