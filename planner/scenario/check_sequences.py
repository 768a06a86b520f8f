"""Rules that sources of sequences must satisfy together with the profiles of their models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.formats.yaml import Location
from planner.profiling.sequences import SequenceCosts
from planner.profiling.types import Profile
from planner.scenario.check import Finding
from planner.scenario.decode import DecodeSpec
from planner.scenario.types import ScenarioSpec


def check_sequences(scenario: ScenarioSpec, profiles: Mapping[str, Mapping[str, Profile]]) -> Iterator[Finding]:
    """Yield what sources of sequences ask of their models that these cannot do, or that no profile tells."""
    for name, source in scenario.sources.items():
        if source.decode is None:
            continue
        location: Location = ("sources", name)
        for index, model in enumerate(source.models):
            at = (*location, "models", index)
            first, *_ = profiles[model].values()
            unknown = [device_class for device_class, it in profiles[model].items() if it.sequences is None]
            if unknown:
                what = f"the profile of {model} on {unknown[0]} knows no sequences"
                expected = "a model with state, measured anew with planner profile measure"
                yield Finding(at, what, None, expected)
            elif first.sequences is not None:
                yield from _of_model(source.decode, model, first.sequences, (*location, "decode"))
            if first.exits:
                yield Finding(at, "a model with exits cannot keep its state", model, "a model without exits")


def _of_model(decode: DecodeSpec, model: str, costs: SequenceCosts, location: Location) -> Iterator[Finding]:
    if costs.max_context is not None and decode.context > costs.max_context:
        yield Finding(
            location,
            f"a sequence is longer than {model} can take",
            f"{decode.prompt} + {decode.max_new} = {decode.context} tokens",
            f"at most {costs.max_context}",
        )
    for index, token in enumerate(decode.stop):
        if token >= costs.vocabulary:
            expected = f"0 to {costs.vocabulary - 1}"
            yield Finding(
                (*location, "stop", index), f"a stop token outside the vocabulary of {model}", token, expected
            )
