from __future__ import annotations

import copy
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from planner.errors import ScenarioError
from planner.scenario.check import check_scenario
from planner.scenario.instance import Instance
from planner.scenario.load import load_scenario
from planner.scenario.paths import find_paths
from planner.scenario.types import NetworkSpec, ScenarioSpec, SourceSpec, WorkerSpec
from tests.instances import random_instance
from tests.scenario.examples import GOOD, write


def to_yaml(document: Any) -> str:
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(document, stream)
    return stream.getvalue()


def load_text(text: str) -> ScenarioSpec:
    with tempfile.TemporaryDirectory() as folder:
        return load_scenario(write(Path(folder), text))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_an_instance_travels_as_json(seed: int, links: bool) -> None:  # noqa: FBT001 # drawn, not passed
    instance = random_instance(seed, links=links)
    again = Instance.model_validate_json(instance.model_dump_json())
    assert again == instance
    assert again.paths == find_paths(again.scenario)
    assert check_scenario(again.scenario) == []


POSITIVE = st.floats(1e-2, 1e9)


@settings(deadline=None)
@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE, st.floats(0, 1))
def test_what_is_written_with_units_is_read_in_si(
    memory_bytes: float, bytes_per_s: float, seconds: float, rate_per_s: float, fraction: float
) -> None:
    scenario = load_text(
        to_yaml(
            {
                "models": {"m": {"profile": "m"}},
                "workers": {
                    name: {"device_class": "x", "memory": f"{memory_bytes!r} B", "base_memory": "0 B"} for name in "ab"
                },
                "networks": {
                    "n": {
                        "kind": "shared",
                        "members": ["a", "b"],
                        "bandwidth": f"{bytes_per_s * 8e-6!r} Mbit/s",
                        "latency": f"{seconds * 1e3!r} ms",
                    }
                },
                "sources": {
                    "s": {
                        "worker": "a",
                        "models": ["m"],
                        "rate": f"{rate_per_s!r} /s",
                        "min_accuracy": f"{fraction * 100!r} %",
                    }
                },
            }
        )
    )
    worker: WorkerSpec = scenario.workers["b"]
    network: NetworkSpec = scenario.networks["n"]
    source: SourceSpec = scenario.sources["s"]
    assert worker.memory_bytes == memory_bytes
    assert network.bandwidth_bytes_per_s == pytest.approx(bytes_per_s)
    assert network.latency_s == pytest.approx(seconds)
    assert source.rate_per_s == rate_per_s
    assert source.min_accuracy == pytest.approx(fraction)


DOCUMENT = YAML(typ="safe", pure=True).load(GOOD)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(["", "gate", "5 /s", "3 GiB", "poisson", "point-to-point", "trace", "-1 s", "∞"]),
    st.just([]),
    st.just({}),
    st.just([["gate", "gate", "gate"]]),
    st.just({"gate": ["gate"]}),
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a document at which a value stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in inner for found in places(item, (*place, key)))][0 if place else 1 :]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(DOCUMENT)), st.sampled_from(["set", "delete", "rename"]), ODD)))
def test_any_damage_is_reported_with_its_line(damage: list[tuple[tuple[Any, ...], str, Any]]) -> None:
    document = copy.deepcopy(DOCUMENT)
    for (*outer, key), action, odd in damage:
        entry = document
        try:
            for step in outer:
                entry = entry[step]
            value = entry.pop(key) if action != "set" else None
            if action == "rename":
                entry[f"{key}x"] = value
            elif action == "set":
                entry[key] = odd
        except (LookupError, TypeError, AttributeError):
            continue  # earlier damage has taken this place away
    try:
        load_text(to_yaml(document))
    except ScenarioError as error:
        texts = [str(fault) for fault in error.faults]
        assert texts  # some damage leaves a sound scenario
        assert len(set(texts)) == len(texts)
        lines = [int(text.partition("scenario.yaml:")[2].partition(":")[0]) for text in texts]
        assert lines == sorted(lines)
