"""How far the outputs of a run may be from the reference: what each provider does to each whole model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from planner.errors import RuntimeSessionError
from planner.execution.wire.frames import Tensors
from planner.model.chain import TensorSpec
from planner.runtime.providers import PROVIDERS, Provider, find_provider
from planner.runtime.tolerance import Tolerance, base_tolerance, measure_tolerance, unmeasured_tolerance
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Record
from planner.validation.references import References

MEASURED_INPUTS: Final = 16
"""Maximum number of inputs of a source on which the whole model is run on a provider."""

_Key = tuple[str, int]


@dataclass(frozen=True)
class Limits:
    """Largest acceptable relative error of each output of a run.

    Parameters
    ----------
    tolerances
        By model and provider.
    computed
        For runs on several providers: those that computed each sample, by source and sample.
    """

    tolerances: Mapping[tuple[str, str], Tolerance]
    computed: Mapping[_Key, frozenset[str]] = field(default_factory=dict)

    def of(self, model: str, source: str, sample: int) -> float:
        """Return the limit of a sample: that of its most tolerant provider, or of the model's if it is unknown."""
        providers = self.computed.get((source, sample))
        return max(
            tolerance.limit
            for (name, provider), tolerance in self.tolerances.items()
            if name == model and (providers is None or provider in providers)
        )


@dataclass(frozen=True)
class ReferenceRuns:
    """A whole model, and what the reference made of some inputs.

    Parameters
    ----------
    model
        The serialised model.
    cuts
        Tensors at its cuts.
    runs
        Inputs and outputs.
    """

    model: bytes
    cuts: Sequence[Sequence[TensorSpec]]
    runs: Sequence[tuple[Tensors, Tensors]]


def reference_runs(
    model: str, instance: Instance, inputs: Mapping[str, Sequence[Tensors]], expected: References
) -> list[tuple[Tensors, Tensors]]:
    """Return some inputs of each source that uses a model, with the outputs of the reference."""
    sources = [source for source in instance.sources if (source, model) in expected]
    return [
        run
        for source in sources
        for run in islice(zip(inputs[source], expected[source, model], strict=True), MEASURED_INPUTS)
    ]


def measure_limits(
    models: Mapping[str, ReferenceRuns],
    records: Iterable[Record],
    providers: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> Limits:
    """Run the whole models on the providers of a run, as far as this machine has them.

    Parameters
    ----------
    records
        Records of the run.
    providers
        Provider of each worker.
    """
    computed = _providers_of_samples(records, providers)
    used = sorted({provider for own in computed.values() for provider in own}) or ["cpu"]
    tolerances: dict[tuple[str, str], Tolerance] = {}
    for name, model in models.items():
        for provider in used:
            tolerances[name, provider] = _tolerance(name, model, provider)
            if progress is not None:
                progress(len(tolerances), len(models) * len(used))
    return Limits(tolerances, computed if len(used) > 1 else {})


def _tolerance(name: str, model: ReferenceRuns, provider: str) -> Tolerance:
    base = base_tolerance(model.cuts)
    try:
        return measure_tolerance(model.model, find_provider(provider), model.runs, base, name=name)
    except RuntimeSessionError:  # this machine lacks the device, or cannot hold the whole model on it
        return unmeasured_tolerance(PROVIDERS.get(provider, Provider(provider, (), precision="unknown")), base)


def _providers_of_samples(records: Iterable[Record], providers: Mapping[str, str]) -> dict[_Key, frozenset[str]]:
    """Return the providers that computed each sample."""
    computed = defaultdict[_Key, frozenset[str]](frozenset)
    shared: dict[frozenset[str], frozenset[str]] = {}
    for record in records:
        if isinstance(record, BlockRecord):
            key = record.source, record.sample
            own = computed[key] | {providers.get(record.worker, "cpu")}
            computed[key] = shared.setdefault(own, own)  # a long run has few distinct sets
    return dict(computed)
