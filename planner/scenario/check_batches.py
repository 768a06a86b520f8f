"""Rules for sources whose samples may run as batches, by themselves and together with the profiles of their models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.profiling.types import Profile
from planner.scenario.check import Finding
from planner.scenario.types import ScenarioSpec


def check_batches(scenario: ScenarioSpec, profiles: Mapping[str, Mapping[str, Profile]]) -> Iterator[Finding]:
    """Yield what sources ask of batches that cannot be, or that no profile tells."""
    most: dict[str, tuple[str, int]] = {}
    for name, source in scenario.sources.items():
        at = ("sources", name, "max_batch")
        for model in source.models:
            other, size = most.setdefault(model, (name, source.max_batch))
            if size != source.max_batch:
                what = f"source {other} shares model {model} and has another max_batch"
                yield Finding(at, what, source.max_batch, f"{size}, or another model")
        if source.max_batch > 1:
            yield from _of_source(scenario, name, profiles)
        elif source.max_batch_wait_s > 0:
            yield Finding((*at[:2], "max_batch_wait"), "no batch is waited for", None, "a max_batch above 1")
    if all(source.max_batch == 1 for source in scenario.sources.values()):
        for name, worker in scenario.workers.items():
            for key in ("max_batch", "max_batch_wait_s"):
                if getattr(worker, key) is not None:
                    expected = "a source with a max_batch above 1"
                    yield Finding(("workers", name, key.removesuffix("_s")), "no source runs batches", None, expected)


def _of_source(scenario: ScenarioSpec, name: str, profiles: Mapping[str, Mapping[str, Profile]]) -> Iterator[Finding]:
    source, at = scenario.sources[name], ("sources", name, "max_batch")
    if source.decode is not None:
        expected = "max_batch: 1, or no decode"
        yield Finding(at, "sequences run no batches", source.max_batch, expected, ((*at[:2], "decode"),))
    for model in source.models:
        for device_class, profile in profiles[model].items():
            if profile.exits:
                yield Finding(at, f"{model} has early exits, and runs no batches", source.max_batch, "max_batch: 1")
                break
            known = 1 if profile.batches is None else profile.batches.most
            if known < source.max_batch:
                sizes = "no batches" if known == 1 else f"batches of up to {known} only"
                yield Finding(
                    at,
                    f"the profile of {model} on {device_class} knows {sizes}",
                    source.max_batch,
                    f"a profile by planner profile measure --batches 1,…,{source.max_batch}, where the first axis of "
                    "the model's inputs is open",
                )
