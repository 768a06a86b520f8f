"""Which assumptions about the paper's testbed and policies bring all six figures near: a search in two steps.

python examples/ms-mdi/search.py [--count N] [--seed S] [--share PART] [--confirm PART] [--log FILE]

Beside the free parameters of ``run.py``, these are drawn:

- how γ of equation (1) is read: ``measured``, what each worker's own tasks take per parameter, as in our ``ar-mdi`` and
  ``ms-mdi``; or of the ``device``, equal for the paper's equal workers, so that all segments have equal shares of the
  parameters;
- the limit of the reservoir, and whether equation (2) is taken as printed;
- into how many blocks the model may be cut;
- how much of the time operators take alike, whatever they compute, as where a framework starts each by itself.

The first choice is that of the scenarios. A third of the others are random; each generation after that changes a few
things of the nearest ones so far. The nearest of all are simulated again with more images. Samples, and the times
between them, are the same for all choices.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import typer
from make_profile import DEVICE_CLASS, NAME
from run import NEAR, PAPER, QUICK, SET_UPS, Counter, Free, gains, in_order, set_up

from planner.cli.output import print_table, progress_bar
from planner.model.architectures import mobilenetv2
from planner.model.load import load_chain
from planner.policy.ar_mdi import ArMdi, Mdi
from planner.policy.ms_mdi import MsMdi
from planner.policy.routed import Local
from planner.policy.types import Policy, View
from planner.profiling.device_classes import load_class
from planner.profiling.estimate import estimate
from planner.profiling.types import Profile
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulator

SHOWN: Final = 5
GENERATION: Final = 8
PARENTS: Final = 6
"""How many of the nearest choices are changed further."""
BLOCKS: Final = (6, 9, 12, 18)
ALIKE: Final = (0.0, 0.5, 1.0)

Figures = dict[tuple[int, str], float]


class Assumptions(NamedTuple):
    """The free parameters, and how the policies are read."""

    image_s: float
    megabit_per_s: float
    overlap: bool
    by_device: bool
    reservoir_limit: int
    literal: bool
    blocks: int
    alike: float

    def __str__(self) -> str:
        """Describe them in a line."""
        return (
            f"{1e3 * self.image_s:.0f} ms, {self.megabit_per_s:.0f} Mbit/s, {'' if self.overlap else 'no '}overlap, "
            f"γ {'of the device' if self.by_device else 'measured'}, limit {self.reservoir_limit}, "
            f"{self.blocks} blocks, {self.alike:.0%} alike{', eq. (2) as printed' if self.literal else ''}"
        )


FITTED: Final = Assumptions(0.25, 33.0, True, False, 2, False, 6, 0.0)  # noqa: FBT003
"""What the scenarios assume, by a search on a grid."""


class DeviceMsMdi(MsMdi):
    """``ms-mdi`` where all workers have the same γ."""

    def per_parameter_s(self, view: View, source: str, worker: str) -> float:  # noqa: ARG002
        """Return the same for all."""
        return 1.0


def draw(random: np.random.Generator) -> Assumptions:
    """Draw 120 to 500 ms an image and 8 to 100 Mbit/s, log-uniform, and the rest with equal chances."""
    return Assumptions(
        image_s=float(np.exp(random.uniform(np.log(0.12), np.log(0.5)))),
        megabit_per_s=float(np.exp(random.uniform(np.log(8), np.log(100)))),
        overlap=bool(random.random() < 0.5),
        by_device=bool(random.random() < 0.5),
        reservoir_limit=int(random.integers(1, 7)),
        literal=bool(random.random() < 0.2),
        blocks=int(random.choice(BLOCKS)),
        alike=float(random.choice(ALIKE)),
    )


def changed(parent: Assumptions, random: np.random.Generator) -> Assumptions:
    """Return a choice near another one: times and bandwidth by a tenth or so, one in four of the rest anew."""
    new = draw(random)
    near: dict[str, Any] = {
        "image_s": float(np.clip(parent.image_s * np.exp(random.normal(0, 0.1)), 0.12, 0.5)),
        "megabit_per_s": float(np.clip(parent.megabit_per_s * np.exp(random.normal(0, 0.15)), 8, 100)),
    }
    rest = {name: getattr(new, name) for name in Assumptions._fields[2:] if random.random() < 0.25}
    return parent._replace(**near, **rest)


@cache
def profile(blocks: int, alike: float, whole_s: float) -> Profile:
    """Return a profile in at most so many blocks that take ``whole_s`` in all, a part in proportion to operators."""
    with tempfile.TemporaryDirectory() as folder:
        path = mobilenetv2(Path(folder) / f"{NAME}.onnx", size=256)
        chain = load_chain(path, max_blocks=blocks, name=NAME)
        found = estimate(chain, load_class(DEVICE_CLASS))
    operators = [after - first for first, after in pairwise(chain.borders)]
    estimated_s = sum(block.mean_s for block in found.blocks)
    costs = tuple(
        block.model_copy(
            update={
                "mean_s": whole_s * ((1 - alike) * block.mean_s / estimated_s + alike * number / sum(operators)),
                "interval_s": None,
            }
        )
        for block, number in zip(found.blocks, operators, strict=True)
    )
    return found.model_copy(update={"blocks": costs})


def _set_up(workers: int, share: float, assumed: Assumptions) -> Instance:
    free = Free(assumed.image_s, assumed.megabit_per_s * 125e3, assumed.overlap)
    instance = set_up(workers, share, free)
    (model,) = instance.profiles
    whole_s = sum(block.mean_s for block in instance.any_profile(model).blocks)
    cut = profile(assumed.blocks, assumed.alike, whole_s)
    return instance.model_copy(update={"profiles": {model: {DEVICE_CLASS: cut}}})


def simulated(assumed: Assumptions, share: float) -> Figures:
    """Simulate all set-ups under the paper's three policies; return how much MS-MDI improves over the others."""
    ms_mdi = DeviceMsMdi if assumed.by_device else MsMdi
    policies: dict[str, Callable[[], Policy]] = {
        "local": partial(Local),
        "ar-mdi": partial(Mdi if assumed.by_device else ArMdi),
        "ms-mdi": partial(ms_mdi, reservoir_limit=assumed.reservoir_limit, literal=assumed.literal),
    }
    found = {}
    for workers in SET_UPS:
        instance = _set_up(workers, share, assumed)
        for name, make in policies.items():
            counter = Counter(sum(instance.samples(source) for source in instance.sources))
            Simulator(instance, policy=name, plan=None, seed=0, sink=counter.take, make=make).run()
            found[workers, name] = counter.outcome()
    return gains(found)


def largest_miss(figures: Figures) -> float:
    """Return by how much the figure misses the paper's that is furthest from it."""
    return max(abs(figures[case] - wanted) for case, wanted in PAPER.items())


class Tried:
    """What was simulated, in a log if one is given, from which a later run goes on."""

    def __init__(self, processes: int, log: Path | None) -> None:
        self._pool = ProcessPoolExecutor(processes) if processes > 1 else None
        self._log = log
        self._known: dict[tuple[float, Assumptions], Figures] = {}
        for line in log.read_text(encoding="utf-8").splitlines() if log is not None and log.exists() else []:
            share, assumed, values = json.loads(line)
            self._known[share, Assumptions(*assumed)] = dict(zip(PAPER, values, strict=True))

    def of(self, choices: Sequence[Assumptions], share: float) -> list[tuple[Assumptions, Figures]]:
        """Return the figures of each choice, simulated with a share of the images."""
        new = [assumed for assumed in dict.fromkeys(choices) if (share, assumed) not in self._known]
        simulate = partial(simulated, share=share)
        for assumed, figures in zip(new, (self._pool.map if self._pool else map)(simulate, new), strict=True):
            self._known[share, assumed] = figures
            if self._log is not None:
                with self._log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([share, assumed, list(figures.values())]) + "\n")
        return [(assumed, self._known[share, assumed]) for assumed in choices]


def main(
    *,
    count: Annotated[int, typer.Option(help="How many choices to try.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the choices.")] = 0,
    share: Annotated[float, typer.Option(help="Share of the images.")] = 0.03,
    confirm: Annotated[float, typer.Option(help="Share of the images for the nearest.")] = QUICK,
    processes: Annotated[int, typer.Option(help="Processes side by side.")] = 1,
    log: Annotated[Path | None, typer.Option(help="File of what was simulated; a later run goes on from it.")] = None,
) -> None:
    """Search for assumptions with the least largest miss; print the nearest, and how many have all six figures near."""
    random = np.random.default_rng(seed)
    tried = Tried(processes, log)
    found: list[tuple[Assumptions, Figures]] = []
    with progress_bar() as progress:
        for begin in progress.track(range(0, count, GENERATION), description="searching"):
            nearest = sorted(found, key=lambda pair: largest_miss(pair[1]))[:PARENTS]
            choices = [
                draw(random) if 3 * begin < count else changed(nearest[int(random.integers(len(nearest)))][0], random)
                for _ in range(min(GENERATION, count - begin))
            ]
            found += tried.of([FITTED, *choices][: len(choices)] if not begin else choices, share)
    found.sort(key=lambda pair: largest_miss(pair[1]))
    confirmed = tried.of([assumed for assumed, _ in found[: 2 * SHOWN]], confirm)
    confirmed.sort(key=lambda pair: largest_miss(pair[1]))
    near, near_confirmed = (sum(largest_miss(figures) <= NEAR for _, figures in pairs) for pairs in (found, confirmed))
    print_table(
        f"{near} of {count} have all six figures within {100 * NEAR:.0f} points on {share:.3g} of the images; of the "
        f"{len(confirmed)} nearest, {near_confirmed} on {confirm:.3g}; the {SHOWN} nearest there",
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
                for assumed, figures in confirmed[:SHOWN]
            ),
        ],
    )


if __name__ == "__main__":
    typer.run(main)
