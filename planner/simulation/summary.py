"""Description of simulated runs: tables for people, and figures as JSON data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from planner.plan.summary import describe_energy
from planner.plan.types import EnergyUse
from planner.scenario.instance import Instance
from planner.simulation.replications import Replication
from planner.tables import Table, milliseconds
from planner.trace.metrics import Interval, interval


def runs_document(runs: Sequence[Replication]) -> dict[str, Any]:
    """Return the figures of a run; of several, their means and the half-widths of their 95 % intervals."""
    documents = [_document(run) for run in runs]
    head = {"policy": runs[0].case.policy, "seed": runs[0].case.seed}
    if len(documents) == 1:
        return head | documents[0]
    means = _fold(documents, lambda values: interval(values).mean)
    half_widths = _fold(documents, lambda values: interval(values).half_width)
    return head | {"replications": len(documents), **means, "half_widths": half_widths}


def describe_runs(runs: Sequence[Replication], instance: Instance) -> Iterator[Table | str]:
    """Return tables of the delays, accuracies and utilisations of the replications of a run."""
    figures = _intervals(runs)
    keys = ("mean_delay_s", "p50_delay_s", "p95_delay_s", "p99_delay_s")
    yield Table(
        f"Simulated with policy {runs[0].case.policy}, {_seeds(runs)}",
        ("source", ">priority", ">completed", ">failed", ">mean", ">median", ">95 %", ">99 %"),
        [
            (
                source,
                f"{instance.scenario.sources[source].priority:g}",
                f"{values['completed'].mean:g} of {values['offered'].mean:g}",
                f"{values['failed'].mean:g}",
                *(_delay(values[key]) for key in keys),
            )
            for source, values in figures["sources"].items()
        ],
    )
    if any(values["miss_share"] is not None or values["dropped"].mean for values in figures["sources"].values()):
        yield _punctuality(figures["sources"], instance)
    if any(values["ttft_s"] is not None for values in figures["sources"].values()):
        yield Table(
            "Tokens",
            ("source", ">to the first token", ">per token", ">tokens of all sequences"),
            [
                (
                    source,
                    _delay(values["ttft_s"]),
                    _delay(values["tpot_s"]),
                    "–" if values["tokens_per_s"] is None else f"{values['tokens_per_s'].mean:.1f} /s",
                )
                for source, values in figures["sources"].items()
            ],
        )
    if instance.calibrated:
        yield Table(
            "Accuracy of the results",
            ("source", ">expected", ">measured"),
            [
                (source, _percent(values["accuracy"]), _percent(values["measured_accuracy"]))
                for source, values in figures["sources"].items()
            ],
        )
    yield Table(
        f"{figures['makespan_s'].mean:.1f} s in virtual time",
        ("worker", ">utilisation"),
        [(worker, f"{values['utilisation'].mean:.1%}") for worker, values in figures["workers"].items()],
    )
    if runs[0].energy is not None:
        yield describe_energy(_mean_energy(runs[0].energy, figures["energy"]), instance)


def _punctuality(figures: Mapping[str, Any], instance: Instance) -> Table:
    return Table(
        "Deadlines",
        ("source", ">deadline", ">missed", ">dropped", ">latest by"),
        [
            (
                source,
                milliseconds(instance.scenario.sources[source].deadline_s),
                _percent(values["miss_share"]),
                f"{values['dropped'].mean:g}",
                _delay(values["max_late_s"]),
            )
            for source, values in figures.items()
        ],
    )


def describe_policies(policies: Mapping[str, Sequence[Replication]], instance: Instance) -> Iterator[Table | str]:
    """Return a table of the mean delays under each policy."""
    seeds = _seeds(next(iter(policies.values())))
    figures = {name: _intervals(runs) for name, runs in policies.items()}
    timed = [source for source, deadline_s in instance.deadlines.items() if deadline_s is not None]
    ends = ["failed"]
    if any(spec.late == "drop" or spec.queue_timeout_s is not None for spec in instance.scenario.sources.values()):
        ends.append("dropped")
    yield Table(
        f"Mean delays under each policy, the same arrivals for all, {seeds}",
        (
            "policy",
            ">weighted by priority",
            *([">accuracy"] if instance.calibrated else []),
            *(f">{source}, priority {spec.priority:g}" for source, spec in instance.scenario.sources.items()),
            *(f">{source} missed" for source in timed),
            *(f">{end}" for end in ends),
            ">makespan",
        ),
        [
            (
                name,
                _delay(values["priority_weighted_delay_s"]),
                *([_percent(_weighted_accuracy(values, instance))] if instance.calibrated else []),
                *(_delay(source["mean_delay_s"]) for source in values["sources"].values()),
                *(_percent(values["sources"][source]["miss_share"]) for source in timed),
                *(f"{sum(source[end].mean for source in values['sources'].values()):g}" for end in ends),
                f"{values['makespan_s'].mean:.1f} s",
            )
            for name, values in figures.items()
        ],
    )


def _document(run: Replication) -> dict[str, Any]:
    metrics = run.metrics
    return {
        "makespan_s": metrics.makespan_s,
        "events": run.simulation.events,
        "priority_weighted_delay_s": metrics.priority_weighted_delay_s,
        "sources": {
            name: {
                "offered": source.offered,
                "completed": source.completed,
                "failed": source.failed,
                "dropped": source.dropped,
                "miss_share": source.miss_share,
                "max_late_s": source.max_late_s,
                "mean_delay_s": source.mean_delay_s,
                "p50_delay_s": source.p50_delay_s,
                "p95_delay_s": source.p95_delay_s,
                "p99_delay_s": source.p99_delay_s,
                "accuracy": source.accuracy,
                "measured_accuracy": source.measured_accuracy,
                "ttft_s": source.ttft_s,
                "tpot_s": source.tpot_s,
                "tokens_per_s": source.tokens_per_s,
            }
            for name, source in metrics.sources.items()
        },
        "workers": {worker: {"utilisation": share} for worker, share in metrics.utilisation.items()},
        "energy": None if run.energy is None else run.energy.model_dump(),
    }


def _mean_energy(first: EnergyUse, figures: dict[str, Any]) -> EnergyUse:
    """Return the means over the replications."""
    per_sample = figures["energy_per_sample_j"]
    return first.model_copy(
        update={
            "average_power_w": figures["average_power_w"].mean,
            "energy_per_sample_j": None if per_sample is None else per_sample.mean,
        }
    )


def _intervals(runs: Sequence[Replication]) -> dict[str, Any]:
    figures: dict[str, Any] = _fold([_document(run) for run in runs], interval)
    return figures


def _fold(documents: Sequence[Any], combine: Callable[[list[float]], Any]) -> Any:
    """Combine documents of equal structure figure by figure; a figure that is missing in all is None."""
    if isinstance(documents[0], dict):
        return {key: _fold([document[key] for document in documents], combine) for key in documents[0]}
    values = [value for value in documents if value is not None]
    return combine(values) if values else None


def _seeds(runs: Sequence[Replication]) -> str:
    seeds = [run.case.seed for run in runs]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"


def _weighted_accuracy(figures: dict[str, Any], instance: Instance) -> Interval | None:
    """Return the mean of the expected accuracies, with the weights of the mean delay."""
    known = {name: source for name, source in figures["sources"].items() if source["accuracy"] is not None}
    weights = {
        name: source["completed"].mean * instance.scenario.sources[name].priority for name, source in known.items()
    }
    total = sum(weights.values())
    mean = sum(weights[name] * source["accuracy"].mean for name, source in known.items())
    return Interval(mean / total, None) if total else None


def _percent(figure: Interval | None) -> str:
    return "–" if figure is None else f"{figure.mean:.1%}"


def _delay(figure: Interval | None) -> str:
    if figure is None or figure.half_width is None:
        return milliseconds(None if figure is None else figure.mean)
    return f"{figure.mean * 1e3:.1f} ± {figure.half_width * 1e3:.1f} ms"
