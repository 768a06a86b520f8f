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
from planner.runtime.providers import PROVIDERS, REFERENCE_PROVIDER, Provider, find_provider
from planner.runtime.tolerance import Tolerance, base_tolerance, known_tolerance, measure_tolerance
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
    profiled
        By provider: its error according to the model's profiles, for those that this machine lacks.
    """

    model: bytes
    cuts: Sequence[Sequence[TensorSpec]]
    runs: Sequence[tuple[Tensors, Tensors]]
    profiled: Mapping[str, float] = field(default_factory=dict)


def reference_runs(
    name: str,
    model: bytes,
    instance: Instance,
    *,
    cuts: Sequence[Sequence[TensorSpec]],
    inputs: Mapping[str, Sequence[Tensors]],
    expected: References,
) -> ReferenceRuns:
    """Return a model with some inputs of each source that uses it, and with the errors in its profiles."""
    sources = [source for source in instance.sources if (source, name) in expected]
    runs = [
        run
        for source in sources
        for run in islice(zip(inputs[source], expected[source, name], strict=True), MEASURED_INPUTS)
    ]
    profiled = {
        str(profile.environment.get("provider")): profile.whole_error
        for profile in instance.profiles[name].values()
        if profile.whole_error is not None
    }
    return ReferenceRuns(model, cuts, runs, profiled)


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
    # A long run has many samples, so they are told apart only where that matters.
    several = len(set(providers.values())) > 1
    computed = _providers_of_samples(records, providers) if several else {}
    used = sorted({provider for own in computed.values() for provider in own} or {*providers.values()})
    used = used or [REFERENCE_PROVIDER]
    tolerances: dict[tuple[str, str], Tolerance] = {}
    for name, model in models.items():
        for provider in used:
            tolerances[name, provider] = _tolerance(name, model, provider)
            if progress is not None:
                progress(len(tolerances), len(models) * len(used))
    return Limits(tolerances, computed)


def _tolerance(name: str, model: ReferenceRuns, provider: str) -> Tolerance:
    base = base_tolerance(model.cuts)
    try:
        return measure_tolerance(model.model, find_provider(provider), model.runs, base, name=name)
    except RuntimeSessionError:  # this machine lacks the device, or cannot hold the whole model on it
        known = PROVIDERS.get(provider, Provider(provider, (), precision="unknown"))
        return known_tolerance(known, base, model.profiled.get(provider))


def _providers_of_samples(records: Iterable[Record], providers: Mapping[str, str]) -> dict[_Key, frozenset[str]]:
    """Return the providers that computed each sample."""
    computed = defaultdict[_Key, frozenset[str]](frozenset)
    shared: dict[frozenset[str], frozenset[str]] = {}
    for record in records:
        if isinstance(record, BlockRecord):
            key = record.source, record.sample
            own = computed[key] | {providers.get(record.worker, REFERENCE_PROVIDER)}
            computed[key] = shared.setdefault(own, own)  # a long run has few distinct sets
    return dict(computed)
