"""Costs in place: what one sample at a time tells of a scenario whose profiles are wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from planner.execute.coordinator import Coordinator
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec
from planner.simulate.run import simulate
from planner.trace.metrics import summarise
from planner.trace.records import Record, SampleRecord, TransferRecord
from planner.validate.rehearsal import Costs, Rehearsal, at_costs, costs_of, one_at_a_time
from planner.validate.run import Progress, validate, validation_document
from tests.execute.fleet import fleet
from tests.execute.rig import BLOCKS, MODEL, SPLIT, small_deployment, small_instance

BELIEVED = small_instance(samples=200, rate_per_s=40.0)


def with_speed(instance: Instance, worker: str, speed: float) -> Instance:
    """Another speed of a worker."""
    workers = instance.scenario.workers
    changed = workers | {worker: workers[worker].model_copy(update={"speed": speed})}
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"workers": changed})})


def with_bandwidth(instance: Instance, bytes_per_s: float, latency_s: float) -> Instance:
    """Other costs of all transfers."""
    paths = {
        sender: {
            receiver: path.model_copy(
                update={
                    "hops": tuple(
                        hop.model_copy(update={"bytes_per_s": bytes_per_s, "latency_s": latency_s}) for hop in path.hops
                    )
                }
            )
            for receiver, path in ways.items()
        }
        for sender, ways in instance.paths.items()
    }
    return instance.model_copy(update={"paths": paths})


REAL = with_bandwidth(with_speed(with_speed(BELIEVED, "a", 0.6), "c", 5.0), 2e5, 0.003)


def rehearsed(real: Instance, lasts_s: float = 20.0) -> list[Record]:
    """Samples one at a time, where the scenario's costs are ``real`` and believed to be others."""
    alone = one_at_a_time(small_deployment(BELIEVED, SPLIT), lasts_s)
    scenario = alone.scenario.model_copy(update={"workers": real.scenario.workers})
    played = real.model_copy(update={"scenario": scenario, "traces": alone.traces})
    records, _ = simulate(played, policy="planned", plan=SPLIT, seed=0)
    (hop,) = real.paths["a"]["b"].hops
    for record in records:  # agents see a transfer when it is there; the simulator when the medium is free again
        if isinstance(record, TransferRecord):
            record.end_s += hop.latency_s
    return records


def mean_delays_s(instance: Instance) -> dict[str, float | None]:
    records, _ = simulate(instance, policy="planned", plan=SPLIT, seed=1)
    priorities = dict.fromkeys(instance.sources, 1.0)
    found = summarise(records, priorities, instance.workers, instance.accuracies)
    return {source: own.mean_delay_s for source, own in found.sources.items()}


def test_costs_in_place_predict_what_wrong_profiles_do_not() -> None:
    found = at_costs(BELIEVED, costs_of(rehearsed(REAL)))
    assert mean_delays_s(found) == pytest.approx(mean_delays_s(REAL), rel=0.05)
    assert mean_delays_s(BELIEVED) != pytest.approx(mean_delays_s(REAL), rel=0.5)


def test_what_blocks_took_by_their_profiles() -> None:
    slowness = costs_of(rehearsed(REAL)).slowness(BELIEVED)
    assert slowness == pytest.approx({"a": 1 / 0.6, "b": 1.0, "c": 4 / 5}, rel=0.05)


def test_samples_are_alone() -> None:
    samples = sorted(
        (record for record in rehearsed(BELIEVED) if isinstance(record, SampleRecord)), key=lambda one: one.created_s
    )
    assert {record.source for record in samples} == {"urgent", "other"}
    assert all(one.finished_s < other.created_s for one, other in itertools.pairwise(samples))


def test_nothing_happens_in_a_rehearsal() -> None:
    gone = EventSpec.model_validate({"at_s": 0.1, "action": "leave", "worker": "c"})
    scenario = BELIEVED.scenario.model_copy(update={"events": (gone,)})
    deployment = small_deployment(BELIEVED.model_copy(update={"scenario": scenario}), SPLIT)
    assert one_at_a_time(deployment, 1.0).scenario.events == ()


def test_blocks_that_were_not_met_are_as_much_slower_as_those_that_were() -> None:
    found = at_costs(BELIEVED, Costs({("b", "small", 1): [0.006]}, {}))
    assert found.block_s("small", "b").tolist() == pytest.approx([0.006] * BLOCKS)
    assert found.block_s("small", "a").tolist() == BELIEVED.block_s("small", "a").tolist()


@pytest.mark.parametrize(
    ("transfers", "bytes_per_s", "latency_s"),
    [
        ([(1000, 0.003), (101_000, 0.103)], 1e6, 0.002),
        ([(1000, 0.003), (2000, 0.005)], 2000 / 0.004, 0.001),
        ([(1000, 0.0005)], 1e7, 0.0004),
        ([], 1e7, 0.001),
    ],
    ids=["far apart", "about as large", "sooner than the latency", "none"],
)
def test_bandwidth_and_latency_from_transfers(
    transfers: list[tuple[int, float]], bytes_per_s: float, latency_s: float
) -> None:
    (hop,) = at_costs(BELIEVED, Costs({}, {"wifi": transfers})).paths["a"]["b"].hops
    assert (hop.bytes_per_s, hop.latency_s) == pytest.approx((bytes_per_s, latency_s))


def test_a_worker_whose_speed_changed_is_named() -> None:
    before = Costs({("a", "small", 0): [0.004], ("b", "small", 1): [0.002]}, {})
    after = Costs({("a", "small", 0): [0.0041], ("b", "small", 1): [0.0025]}, {})
    assert Rehearsal(before, after).drifted(BELIEVED) == ["b"]
    assert Rehearsal(before, None).drifted(BELIEVED) == []
    assert Rehearsal(before, after).slowness(BELIEVED)["b"] == pytest.approx((1.0, 1.25))


@contextmanager
def agents(folder: Path) -> Iterator[Coordinator]:
    with fleet(folder, "a", "b", "c") as (_, coordinator):
        yield coordinator


def test_a_run_that_was_rehearsed_tells_both_predictions(tmp_path: Path) -> None:
    said: list[str] = []

    def say(step: str) -> Progress:
        said.append(step)
        return lambda _done, _all: None

    deployment = small_deployment(small_instance(samples=8), SPLIT)
    found = validate(deployment, {"small": MODEL}, agents(tmp_path), rehearse_s=0.2, say=say)
    assert found.sound
    assert said.count("one sample at a time") == 2
    document = validation_document(found, tolerance=0.15)
    # Blocks of 32 x 32 take microseconds, not the profile's milliseconds.
    assert all(before < 0.9 and after < 0.9 for before, after in document["rehearsed"]["slowness"].values())
    assert set(document["rehearsed"]["by_profile_s"]) == {"urgent", "other"}
    for name, own in document["sources"].items():
        assert own["predicted"]["mean_delay_s"] < document["rehearsed"]["by_profile_s"][name]
