"""How one plan differs from another: sources, workers and routes that came, went or moved, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Final, Literal

from planner.base import FrozenModel
from planner.plan.types import PlanSpec, SourcePlan
from planner.scenario.instance import Instance
from planner.scenario.types import SourceSpec
from planner.units import format_number

What = Literal["added", "removed", "changed", "unchanged"]

_TELLING: Final = 0.5e-3
"""Difference of delays that is told, in seconds."""

_SHARE: Final = 0.005
"""Difference of utilisations and of shares of work that is told."""


class SourceDifference(FrozenModel):
    """What became of a source; the old values of one that was added, and the new ones of one removed, are None."""

    what: What
    worker: tuple[str | None, str | None] = (None, None)
    """The worker at which its samples arrive, before and after."""
    rate_per_s: tuple[float | None, float | None] = (None, None)
    priority: tuple[float | None, float | None] = (None, None)
    models: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    work: tuple[dict[str, float], dict[str, float]] = ({}, {})
    """The share of its blocks that each worker runs, before and after."""
    rerouted: bool = False
    """Whether its routes or their shares are others."""
    delay_s: tuple[float | None, float | None] = (None, None)
    """Mean delay that the plans predict; None also where it grows without limit."""


class WorkerDifference(FrozenModel):
    """What became of a worker."""

    what: What
    utilisation: tuple[float | None, float | None] = (None, None)
    memory_bytes: tuple[float | None, float | None] = (None, None)
    loads: dict[str, tuple[int, ...]] = {}
    """Blocks of each model that it has to load."""


class PlanDifference(FrozenModel):
    """The differences between two plans, each of which may be for a scenario of its own."""

    sources: dict[str, SourceDifference]
    workers: dict[str, WorkerDifference]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        whats = [source.what for source in self.sources.values()] + [worker.what for worker in self.workers.values()]
        return all(what == "unchanged" for what in whats)

    def lines(self) -> list[str]:
        """Return the differences in words, one line per source or worker that differs."""
        lines = [f"{name} {text}" for name, source in self.sources.items() if (text := _source_text(source))]
        lines += [f"{name} {text}" for name, worker in self.workers.items() if (text := _worker_text(worker))]
        return lines or ["the plans are the same"]


def plan_difference(old_instance: Instance, old: PlanSpec, new_instance: Instance, new: PlanSpec) -> PlanDifference:
    """Return how a new plan differs from an old one."""
    old_sources, new_sources = old_instance.scenario.sources, new_instance.scenario.sources
    sources = {
        name: _source_difference(
            old_sources.get(name), old.sources.get(name), new_sources.get(name), new.sources.get(name)
        )
        for name in dict.fromkeys((*old_sources, *new_sources))
    }
    names = dict.fromkeys((*old_instance.workers, *new_instance.workers))
    workers = {name: _worker_difference(name, old_instance, old, new_instance, new) for name in names}
    return PlanDifference(sources=sources, workers=workers)


def _source_difference(
    before: SourceSpec | None, old: SourcePlan | None, after: SourceSpec | None, new: SourcePlan | None
) -> SourceDifference:
    values = {
        "worker": (before and before.worker, after and after.worker),
        "rate_per_s": (before and before.rate_per_s, after and after.rate_per_s),
        "priority": (before and before.priority, after and after.priority),
        "models": (before.models if before else (), after.models if after else ()),
    }
    rerouted = _routes(old) != _routes(new)
    if before is None or after is None:
        what: What = "added" if before is None else "removed"
    else:
        what = "changed" if rerouted or any(one != other for one, other in values.values()) else "unchanged"
    return SourceDifference.model_validate({
        **values,
        "what": what,
        "work": (_work(old), _work(new)),
        "rerouted": rerouted,
        "delay_s": (_delay_s(old), _delay_s(new)),
    })  # fmt: skip


def _routes(plan: SourcePlan | None) -> frozenset[object]:
    routes = plan.routes if plan is not None else ()
    return frozenset((route.model, route.operating_point, route.stages, round(route.share, 2)) for route in routes)


def _work(plan: SourcePlan | None) -> dict[str, float]:
    """Return the share of a source's blocks that each worker runs."""
    work: dict[str, float] = {}
    for route in plan.routes if plan is not None else ():
        length = sum(stage.last_block - stage.first_block + 1 for stage in route.stages)
        for stage in route.stages:
            share = route.share * (stage.last_block - stage.first_block + 1) / length
            work[stage.worker] = work.get(stage.worker, 0.0) + share
    return work


def _delay_s(plan: SourcePlan | None) -> float | None:
    return plan.delay_s if plan is not None and isfinite(plan.delay_s) else None


def _worker_difference(
    name: str, old_instance: Instance, old: PlanSpec, new_instance: Instance, new: PlanSpec
) -> WorkerDifference:
    before, after = name in old_instance.workers, name in new_instance.workers
    held, needed = _blocks(old, name), _blocks(new, name)
    loads = {model: tuple(sorted(blocks - held.get(model, set()))) for model, blocks in needed.items()}
    loads = {model: blocks for model, blocks in loads.items() if blocks}
    was, is_ = (old.workers.get(name) if before else None), (new.workers.get(name) if after else None)
    utilisation = (was.utilisation if was is not None else None, is_.utilisation if is_ is not None else None)
    if before and after:
        same = old_instance.worker(name) == new_instance.worker(name) and held == needed
        what: What = "unchanged" if same and not _differ(*utilisation) else "changed"
    else:
        what = "added" if after else "removed"
    return WorkerDifference(
        what=what,
        utilisation=utilisation,
        memory_bytes=(was.memory_bytes if was is not None else None, is_.memory_bytes if is_ is not None else None),
        loads=loads,
    )


def _blocks(plan: PlanSpec, worker: str) -> dict[str, set[int]]:
    """Return the blocks of each model that a plan runs on a worker."""
    found: dict[str, set[int]] = {}
    for route in (route for source in plan.sources.values() for route in source.routes):
        for stage in route.stages:
            if stage.worker == worker:
                found.setdefault(route.model, set()).update(range(stage.first_block, stage.last_block + 1))
    return found


def _differ(before: float | None, after: float | None) -> bool:
    return (before is None) != (after is None) or (
        before is not None and after is not None and abs(after - before) >= _SHARE
    )


# ---- in words -------------------------------------------------------------------------------------------------------


def _source_text(source: SourceDifference) -> str:
    before_s, after_s = source.delay_s
    if source.what == "added":
        delay = f"; {_milliseconds(after_s)}" if after_s is not None else ""
        return f"is added at {source.worker[1]}, computed on {_named(source.work[1])}{delay}"
    if source.what == "removed":
        return "is removed"
    parts = [*_settings(source), *_movement(source)]
    difference_s = after_s - before_s if before_s is not None and after_s is not None else 0.0
    if abs(difference_s) >= _TELLING:
        more = f"{'+' if difference_s > 0 else ''}{_milliseconds(difference_s)}"
        parts.append(more if parts else f"has {more} of delay")
    elif (before_s is None) != (after_s is None):
        parts.append("its delay grows without limit" if after_s is None else "its delay is bounded again")
    return "; ".join(parts)


def _settings(source: SourceDifference) -> Iterator[str]:
    """Yield what the user has set otherwise."""
    for name, (before, after), unit in (
        ("priority", source.priority, ""),
        ("rate", source.rate_per_s, " /s"),
    ):
        if before != after:
            yield f"has {name} {_number(after)}{unit} in place of {_number(before)}{unit}"
    if source.worker[0] != source.worker[1]:
        yield f"arrives at {source.worker[1]} in place of {source.worker[0]}"
    if source.models[0] != source.models[1]:
        yield f"uses {', '.join(source.models[1])} in place of {', '.join(source.models[0])}"


def _movement(source: SourceDifference) -> Iterator[str]:
    if not source.rerouted:
        return
    before, after = source.work
    gone = {name: share for name, share in before.items() if share - after.get(name, 0.0) >= _SHARE}
    come = {name: share for name, share in after.items() if share - before.get(name, 0.0) >= _SHARE}
    left, joined = gone.keys() - after.keys(), come.keys() - before.keys()
    if left and joined:
        yield f"moves from {_named(left)} to {_named(joined)}"
    elif gone and come and (left or joined):
        yield f"moves from {_named(gone)} to {_named(come)}"
    elif gone and come:
        yield f"moves work from {_named(gone)} to {_named(come)}"
    else:
        yield f"takes other routes over {_named(after)}"


def _worker_text(worker: WorkerDifference) -> str:
    if worker.what == "removed":
        return "is removed"
    parts = ["is added"] if worker.what == "added" else []
    if worker.loads:
        parts.append("loads " + ", ".join(f"{_span(blocks)} of {model}" for model, blocks in worker.loads.items()))
    before, after = worker.utilisation
    if worker.what == "added" and after is not None:
        parts.append(f"utilisation {after:.0%}")
    elif before is not None and after is not None and abs(after - before) >= 2 * _SHARE:
        parts.append(f"{'' if parts else 'has '}utilisation {after:.0%} in place of {before:.0%}")
    return ", ".join(parts)


def _span(blocks: tuple[int, ...]) -> str:
    if len(blocks) == 1:
        return f"block {blocks[0]}"
    if blocks[-1] - blocks[0] == len(blocks) - 1:
        return f"blocks {blocks[0]}-{blocks[-1]}"
    return f"blocks {', '.join(map(str, blocks))}"


def _named(workers: Iterable[str]) -> str:
    names = sorted(workers)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _number(value: float | None) -> str:
    return "none" if value is None else format_number(value, 4)


def _milliseconds(time_s: float) -> str:
    return f"{format_number(time_s * 1e3)} ms"
