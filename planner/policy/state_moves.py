"""What becomes of a sequence whose route a new plan lacks, or that is broken: the cheapest of three ways.

It may *stay* on its route, as long as that can be passed; its state may *move* to the new route; or it may *restart*
there from its tokens, all of which become a prompt. What each takes follows from the profile's curves, how slow workers
and links are, and the largest number of tokens to come:

    stay:     t(old)
    move:     t(new) + transfer of the state of the blocks that change workers
    restart:  t(new) + time of the prompt instead of that of the next run
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import inf
from typing import Literal, TypeAlias

from planner.plan.types import Route, Stage
from planner.policy.types import Progress, View
from planner.profiling.sequences import Run

Choice: TypeAlias = Literal["stay", "move", "restart"]


def choose(
    view: View, source: str, old: Route, new: Route, *, progress: Progress | None, slowness: Mapping[str, float]
) -> Choice:
    """Return what to do with a sequence; as the scenario's ``policy: sequences`` says, where that is possible.

    Parameters
    ----------
    old, new
        The route on which its state is, and that which the policy has chosen for its next run.
    progress
        How far it is; None if that is not known.
    slowness
        How many times slower than profiled workers are, beside what the view knows.
    """
    wanted = view.instance.scenario.policy.sequences
    if not _fits(view, old, new):
        return "restart"
    home = view.instance.home(source)
    possible: dict[Choice, float] = {"restart": inf, "move": inf, "stay": inf}
    moved = _moved(old, new)
    if all(sender not in view.absent and view.broken(sender, receiver) is None for sender, receiver in moved):
        possible["move"] = 0.0
    if view.passable(home, old):
        possible["stay"] = 0.0
    if wanted != "cheapest":
        return wanted if possible[wanted] == 0.0 else "restart"
    times = _Times(view, source, slowness)
    if progress is None or not times.known(old.model):
        return "move" if possible["move"] == 0.0 else "restart"
    past, fresh, left = progress
    next_run, steps = Run(fresh, past), Run(1, past + fresh + left // 2)
    steps_s = {route: left * times.run_s(route, steps) for route in (old, new)}
    found: dict[Choice, float] = {
        "restart": times.run_s(new, Run(past + fresh, 0)) + steps_s[new],
        "move": possible["move"] + times.move_s(old.model, moved, past) + times.run_s(new, next_run) + steps_s[new],
        "stay": possible["stay"] + times.run_s(old, next_run) + steps_s[old],
    }
    return min(found, key=found.__getitem__)


def _fits(view: View, old: Route, new: Route) -> bool:
    """Return whether two routes have the same blocks, so that the state of one is that of the other."""
    length = view.costs.length(new.model)
    same = (old.model, old.operating_point) == (new.model, new.operating_point)
    whole = all(route.stages and route.stages[-1].last_block == length - 1 for route in (old, new))
    return same and whole and all(stage.worker in view.instance.scenario.workers for stage in old.stages)


def _moved(old: Route, new: Route) -> Mapping[tuple[str, str], list[int]]:
    """Return the blocks that change workers, by these."""
    after, moved = _workers(new.stages), defaultdict[tuple[str, str], list[int]](list)
    for block, worker in _workers(old.stages).items():
        if after[block] != worker:
            moved[worker, after[block]].append(block)
    return moved


def _workers(stages: Iterable[Stage]) -> dict[int, str]:
    return {block: stage.worker for stage in stages for block in range(stage.first_block, stage.last_block + 1)}


class _Times:
    """What runs and transfers of sequences of one source take, while nothing else is done."""

    def __init__(self, view: View, source: str, slowness: Mapping[str, float]) -> None:
        self._instance, self._costs = view.instance, view.costs
        self._home = view.instance.home(source)
        self._slowness = slowness

    def known(self, model: str) -> bool:
        """Return whether all profiles of a model know sequences."""
        return all(profile.sequences is not None for profile in self._instance.profiles[model].values())

    def run_s(self, route: Route, run: Run) -> float:
        """Return the time of a run on a route and back to where the next one begins, in seconds."""
        instance, model = self._instance, route.model
        own_s = 0.0
        for stage in route.stages:
            blocks_s = instance.run_s(model, stage.worker, [run])[0][stage.first_block : stage.last_block + 1]
            slow = self._slowness.get(stage.worker, self._costs.slowness.get(stage.worker, 1.0))
            own_s += slow * (float(blocks_s.sum()) + instance.stage_overhead_s(model, stage.worker))
        sequences = instance.any_profile(model).sequences
        sizes = [0.0] * (instance.length(model) + 1) if sequences is None else sequences.cut_bytes([run])[0].tolist()
        cuts = [*(stage.first_block for stage in route.stages), instance.length(model)]
        begins = route.stages[-1].worker if route.loop == "last" and run.new == 1 else self._home
        ends = route.stages[-1].worker if route.loop == "last" else self._home
        ways = pairwise([begins, *(stage.worker for stage in route.stages), ends])
        carried = zip(ways, cuts, strict=True)
        sent_s = [self._costs.transfer_s(*way, sizes[cut] if cut < cuts[-1] else 0.0) for way, cut in carried]
        return own_s + sum(sent_s, 0.0)

    def move_s(self, model: str, moved: Mapping[tuple[str, str], list[int]], context: int) -> float:
        """Return the time to move the state of some blocks, in seconds: they are asked for one after the other."""
        sequences = self._instance.any_profile(model).sequences
        if sequences is None:
            return 0.0
        moves_s = []
        for (sender, receiver), blocks in moved.items():
            size_bytes = sum([sequences.blocks[block].state_bytes(context) for block in blocks])
            asked_s = self._costs.latency_s(receiver, sender)
            moves_s.append(asked_s + self._costs.transfer_s(sender, receiver, size_bytes))
        return sum(moves_s, 0.0)
