"""Samples that run as batches: rate of a saturated model with and without, delay of an urgent source, and predictions.

Batches that the plan limits, so that urgent work waits no longer for one than is asked, show what rate is to be had at
which urgent delay.

A GPT-2 of two layers of full width reads prompts of eight tokens, so that reading its weights takes most of the time of
a single sample. Two agents of one thread each run it as a pipeline at their own speed. One source has more samples than
they can carry; an urgent one of a tenth of the rate without batches shares the model.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from math import inf
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, NamedTuple

from benchmarks.execution.pipeline import balanced, line, plan_of, run_on_this_host
from planner.cli.output import print_table
from planner.model.architectures import gpt2
from planner.model.load import ChainModel, load_chain
from planner.plan.evaluate import evaluate
from planner.plan.sessions import join_blocks
from planner.plan.types import PlanSpec
from planner.profiling.measure import measure
from planner.profiling.types import Profile
from planner.runtime.processors import available_processors
from planner.scenario.instance import Instance
from planner.simulation.replications import RunSpec, simulate_case
from planner.tables import milliseconds
from planner.trace.records import BlockRecord, SampleRecord

NAME: Final = "gpt2-prompts"
SIZES: Final = (1, 2, 4, 8)
MOST: Final = 8
SAMPLES: Final = 800
TURNS: Final = 3
URGENT: Final = 0.1
"""Rate of the urgent source, relative to what the workers carry without batches."""
WAITS: Final = (2.0, 1.5, 1.25)
"""Longest sessions of batches, relative to the longest of a sample."""
LOADS: Final = (0.2, 0.5, 0.8, 0.85)
"""Utilisations, in full batches, at which predictions are compared with simulations."""
SEEDS: Final = 2
SIMULATED: Final = 40_000
"""Samples of a simulation; near saturation, queues take thousands to reach their steady state."""
HALVINGS: Final = 7
PROFILING_S: Final = 30.0


class _Found(NamedTuple):
    """Bulk samples per second, mean delay of the urgent source in seconds, and mean size of batches."""

    rate_per_s: float
    urgent_s: float
    size: float


def run() -> None:
    """Compare rates and delays with and without batches, and predicted with simulated delays."""
    if len(available_processors()) < 2:
        print("Batches: skipped, since two agents need two processors\n")
        return
    _, profile = _profiled()
    print(*list(profile.contents())[1:], sep="\n")
    alone = _Case(1, None)
    turns: dict[str, list[_Found]] = {"no batches": [], f"up to {MOST}": [], "twice": []}
    turns |= {f"wait {wait:g}": [] for wait in WAITS}
    turns["same rate"] = []
    for _ in range(TURNS):
        turns["no batches"].append(_run(alone, None))
        today = turns["no batches"][-1].rate_per_s
        turns[f"up to {MOST}"].append(_run(_Case(MOST, None), today))
        turns["twice"].append(_run(_Case(MOST, 2 * today), today))
        for wait in WAITS:
            turns[f"wait {wait:g}"].append(_run(_Case(MOST, None, wait), today))
        turns["same rate"].append(_run(_Case(MOST, today), today))
    found = {
        case: _Found(*(median(column) for column in zip(*of_case, strict=True))) for case, of_case in turns.items()
    }
    base = found["no batches"]
    names = {
        "twice": f"up to {MOST}, offered twice the rate without batches",
        "same rate": f"up to {MOST}, offered the rate without batches",
    }
    names |= {f"wait {wait:g}": f"no session over {wait:g} × that of a sample, saturated" for wait in WAITS}
    print_table(
        f"{NAME} on two agents of one thread, medians of {TURNS} turns; system load {os.getloadavg()[0]:.1f} "
        "(goal: at least twice the rate, at no more urgent delay)",
        ("batches", ">rate", ">× no batches", ">mean batch", ">urgent delay", ">× no batches"),
        [
            (
                names.get(case, f"{case}, saturated"),
                f"{it.rate_per_s:.0f} /s",
                f"{it.rate_per_s / base.rate_per_s:.2f}",
                f"{it.size:.1f}",
                milliseconds(it.urgent_s),
                f"{it.urgent_s / base.urgent_s:.2f}",
            )
            for case, it in found.items()
        ],
    )
    _at_equal_delay(profile)
    _predictions(profile)


class _Case(NamedTuple):
    """Largest batch, and the rate of the bulk source; None if all of its samples are there from the start.

    ``wait`` is the longest session of a batch, relative to the longest of one sample.
    """

    max_batch: int
    rate_per_s: float | None
    wait: float | None = None


@lru_cache
def _profiled() -> tuple[ChainModel, Profile]:
    path = Path(tempfile.mkdtemp(prefix="planner-bench-")) / f"{NAME}.onnx"
    gpt2(path, layers=2, width=768, heads=12, vocabulary=1000, tokens=8, batch="batch")
    model = load_chain(path, axes={"batch": 1}, batch=True)
    return model, measure(model, device_class="here", budget_s=PROFILING_S, batches=SIZES)


def _instance(sources: Mapping[str, Mapping[str, Any]], max_batch: int) -> Instance:
    _, profile = _profiled()
    keys = {name: {**spec, "max_batch": max_batch} for name, spec in sources.items()}
    return line(profile, {"a": 1.0, "b": 1.0}, keys)


def _run(case: _Case, today_per_s: float | None) -> _Found:
    model, profile = _profiled()
    slowest_s = max(_stage_s(profile))
    urgent = URGENT * (today_per_s or 1 / slowest_s)
    bulk: dict[str, Any] = {"priority": 1.0, "samples": SAMPLES}
    bulk |= {"arrivals": "batch"} if case.rate_per_s is None else {"rate_per_s": case.rate_per_s}
    lasts_s = SAMPLES / (case.rate_per_s or (today_per_s or 1 / slowest_s) * (1 if case.max_batch == 1 else 2))
    sources = {
        "bulk": bulk,
        "urgent": {"priority": 8.0, "rate_per_s": urgent, "samples": max(int(0.8 * urgent * lasts_s), 10)},
    }
    instance = _instance(sources, case.max_batch)
    plan = plan_of(instance, balanced(profile, 2))
    plan = _limited(instance, plan, case.wait)
    records = run_on_this_host(instance, plan, model, paced=False).records
    ended = [record for record in records if isinstance(record, SampleRecord) and record.status == "completed"]
    bulk_s = sorted(record.finished_s for record in ended if record.source == "bulk")
    sizes = [record.batch for record in records if isinstance(record, BlockRecord) and record.source == "bulk"]
    return _Found(
        (len(bulk_s) - 1) / (bulk_s[-1] - bulk_s[0]),
        fmean(record.finished_s - record.created_s for record in ended if record.source == "urgent"),
        len(sizes) / sum(1 / size for size in sizes),
    )


def _limited(instance: Instance, plan: PlanSpec, wait: float | None) -> PlanSpec:
    """Return a plan whose sessions take at most ``wait`` times as long as that of the longest block for one sample."""
    if wait is None:
        return plan
    (model,) = instance.profiles
    longest_s = float(instance.block_s(model, instance.workers[0]).max())
    routes = join_blocks(instance, {name: entry.routes for name, entry in plan.sources.items()}, wait * longest_s)
    own = {name: entry.model_copy(update={"routes": routes[name]}) for name, entry in plan.sources.items()}
    return plan.model_copy(update={"sources": own})


def _at_equal_delay(profile: Profile) -> None:
    """Print the rate of the bulk source at which the urgent one is as fast as beside saturated workers today."""
    slowest_s = max(_stage_s(profile))
    most_per_s = 1 / slowest_s - URGENT / slowest_s

    def urgent_s(max_batch: int, rate_per_s: float | None, wait: float | None) -> float:
        """Return the mean delay of the urgent source; infinite at rates that full batches do not carry."""
        bulk: dict[str, Any] = {"priority": 1.0, "samples": SIMULATED}
        bulk |= {"arrivals": "batch"} if rate_per_s is None else {"rate_per_s": rate_per_s}
        lasts_s = SIMULATED / (rate_per_s or most_per_s)
        rate = URGENT / slowest_s
        urgent = {"priority": 8.0, "rate_per_s": rate, "samples": int(0.9 * rate * lasts_s)}
        instance = _instance({"bulk": bulk, "urgent": urgent}, max_batch)
        plan = _limited(instance, plan_of(instance, balanced(profile, 2)), wait)
        if rate_per_s is not None:
            routes = {name: entry.routes for name, entry in plan.sources.items()}
            if max(use.utilisation for use in evaluate(instance, routes).workers.values()) > 1:
                return inf
        runs = [simulate_case(instance, plan, RunSpec("planned", seed)).metrics for seed in range(SEEDS)]
        return fmean(run.sources["urgent"].mean_delay_s or 0.0 for run in runs)

    today_s = urgent_s(1, None, None)
    rows = []
    for wait in (None, *WAITS):
        low, high = 0.0, 4 * most_per_s
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if urgent_s(MOST, middle, wait) <= today_s else (low, middle)
        label = f"up to {MOST}" if wait is None else f"no session over {wait:g} × that of a sample"
        rows.append((label, f"{low:.0f} /s", f"{low / most_per_s:.2f}"))
    print_table(
        f"Rate at which the urgent source waits as long as beside saturated workers without batches "
        f"({milliseconds(today_s)}, {most_per_s:.0f} /s), simulated, mean of {SEEDS} runs",
        ("batches", ">rate", ">× no batches, saturated"),
        rows,
    )


def _stage_s(profile: Profile) -> list[float]:
    (border,) = balanced(profile, 2)
    times_s = [block.mean_s for block in profile.blocks]
    return [sum(times_s[:border]), sum(times_s[border:])]


def _predictions(profile: Profile) -> None:
    rows = []
    for load in LOADS:
        sources: dict[str, dict[str, Any]] = {
            "bulk": {"priority": 1.0, "rate_per_s": 1.0, "samples": SIMULATED},
            "urgent": {"priority": 8.0, "rate_per_s": URGENT, "samples": int(SIMULATED * URGENT)},
        }
        plain = _instance(sources, MOST)
        plan = plan_of(plain, balanced(profile, 2))
        routes = {name: entry.routes for name, entry in plan.sources.items()}
        busiest = max(use.utilisation for use in evaluate(plain, routes).workers.values())
        rates = {name: {"rate_per_s": spec["rate_per_s"] * load / busiest} for name, spec in sources.items()}
        instance = plain.with_sources(rates)
        predicted = evaluate(instance, routes).sources
        runs = [simulate_case(instance, plan, RunSpec("planned", seed)).metrics for seed in range(SEEDS)]
        for name in sources:
            simulated_s = fmean(run.sources[name].mean_delay_s or 0.0 for run in runs)
            error = predicted[name].delay_s / simulated_s - 1
            rows.append(
                (f"{load:.0%}", name, milliseconds(predicted[name].delay_s), milliseconds(simulated_s), f"{error:+.1%}")
            )
    print_table(
        f"Mean delays of batches of up to {MOST}, predicted and simulated (mean of {SEEDS} runs)",
        (">load in full batches", "source", ">predicted", ">simulated", ">error"),
        rows,
    )
