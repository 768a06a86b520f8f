"""Calibration runs: in-situ costs correct a prediction from wrong profiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from planner.execution.coordinator.coordinator import Coordinator
from planner.plan.types import Route, Stage
from planner.profiling.sequences import Run, RunCurve
from planner.profiling.types import ColocationCosts
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.decode import DecodeSpec
from planner.scenario.instance import Instance
from planner.scenario.types import EventSpec
from planner.simulation.simulator import Simulator, simulate
from planner.trace.metrics import SourceMetrics, summarise
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord, TransferRecord
from planner.validation.calibration_run import (
    BlockTime,
    CalibrationRuns,
    InSituCosts,
    in_situ_costs,
    shortened_instance,
    with_in_situ_costs,
)
from planner.validation.document import validation_document
from planner.validation.validate import Progress, validate
from tests.execution.fleet import fleet
from tests.execution.rig import BLOCKS, MODEL, SPLIT, small_deployment, small_instance
from tests.instances import make_instance, make_profile, with_sequences
from tests.simulation.test_simulation_sequences import make_plan

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


def predicted(instance: Instance) -> list[Record]:
    """The run as the profiles have it."""
    records, _ = simulate(instance, policy="planned", plan=SPLIT, seed=3)
    return records


def calibration_records(real: Instance, lasts_s: float = 4.0) -> list[Record]:
    """A short run where the scenario's costs are ``real`` and believed to be others."""
    brief = shortened_instance(small_deployment(BELIEVED, SPLIT), predicted(BELIEVED), lasts_s)
    scenario = brief.scenario.model_copy(update={"workers": real.scenario.workers})
    played = real.model_copy(update={"scenario": scenario, "traces": brief.traces})
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


def test_in_situ_costs_predict_what_wrong_profiles_do_not() -> None:
    found = with_in_situ_costs(BELIEVED, in_situ_costs(calibration_records(REAL)))
    assert mean_delays_s(found) == pytest.approx(mean_delays_s(REAL), rel=0.05)
    assert mean_delays_s(BELIEVED) != pytest.approx(mean_delays_s(REAL), rel=0.5)


def test_what_blocks_took_by_their_profiles() -> None:
    slowness = in_situ_costs(calibration_records(REAL)).slowness(BELIEVED)
    assert slowness == pytest.approx({"a": 1 / 0.6, "b": 1.0, "c": 4 / 5}, rel=0.05)


def times_s(instance: Instance, seed: int) -> dict[str, list[float]]:
    return {source: list(instance_arrivals(instance, source, seed)) for source in instance.sources}


def test_samples_come_at_the_rates_of_the_run_but_at_other_times() -> None:
    own = times_s(BELIEVED, seed=3)
    for source, brief in times_s(
        shortened_instance(small_deployment(BELIEVED, SPLIT), predicted(BELIEVED), 2.0), seed=3
    ).items():
        assert len(brief) == sum(
            isinstance(record, SampleRecord) and record.source == source and record.finished_s <= 2.0
            for record in predicted(BELIEVED)
        )
        assert brief[-1] == pytest.approx(2.0, rel=0.3)
        assert not set(brief) & set(own[source])


def test_there_are_a_few_samples_of_each_source_but_no_more_than_the_run_has() -> None:
    rare = small_instance(samples=200, rate_per_s=0.01)
    for found in times_s(shortened_instance(small_deployment(rare, SPLIT), predicted(rare), 2.0), seed=3).values():
        assert len(found) == 5
        assert found[-1] == pytest.approx(2.0)
    few = small_instance(samples=3)
    for found in times_s(shortened_instance(small_deployment(few, SPLIT), predicted(few), 2.0), seed=3).values():
        assert len(found) == 3


def test_a_batch_is_calibrated_with_as_much_of_it_as_ends_in_time() -> None:
    sources = {name: spec.model_copy(update={"arrivals": "batch"}) for name, spec in BELIEVED.scenario.sources.items()}
    batch = BELIEVED.model_copy(update={"scenario": BELIEVED.scenario.model_copy(update={"sources": sources})})
    found = times_s(shortened_instance(small_deployment(batch, SPLIT), predicted(batch), 0.5), seed=3)
    assert all(set(at_s) == {0.0} for at_s in found.values())
    assert 20 < sum(map(len, found.values())) < 200


def test_nothing_happens_in_a_calibration_run() -> None:
    gone = EventSpec.model_validate({"at_s": 0.1, "action": "leave", "worker": "c"})
    scenario = BELIEVED.scenario.model_copy(update={"events": (gone,)})
    deployment = small_deployment(BELIEVED.model_copy(update={"scenario": scenario}), SPLIT)
    assert shortened_instance(deployment, predicted(BELIEVED), 1.0).scenario.events == ()


def completed(source: str, sample: int, created_s: float, finished_s: float) -> SampleRecord:
    return SampleRecord(source, sample, created_s, finished_s, "completed", origin=Origin("small"))


def test_waiting_for_others_is_no_cost_but_what_passes_between_two_blocks_is() -> None:
    records: list[Record] = [
        completed("other", 0, 0.0, 0.050),
        completed("urgent", 0, 0.004, 0.060),
        BlockRecord("a", "other", 0, 0, 0.001, 0.010),  # came to an idle worker 1 ms before
        BlockRecord("a", "urgent", 0, 0, 0.011, 0.020),  # waited, and 1 ms passed after the block before
        BlockRecord("a", "other", 0, 1, 0.022, 0.030),
        TransferRecord("wifi", "a", "b", "urgent", 0, 1, 1000, 0.021, 0.041),
        TransferRecord("wifi", "a", "b", "other", 0, 2, 1000, 0.031, 0.049),  # waited for the other one
    ]
    found = in_situ_costs(records)
    assert [it.session for it in found.blocks["a"]] == [("small", 0, 0), ("small", 0, 0), ("small", 1, 1)]
    assert [it.time_s for it in found.blocks["a"]] == pytest.approx([0.010] * 3)
    ((size_bytes, took_s),) = found.transfers["wifi"]
    assert (size_bytes, took_s) == pytest.approx((1000, 0.020))


def test_what_may_have_been_held_back_at_home_counts_from_its_beginning() -> None:
    records: list[Record] = [
        completed("other", 0, 0.0, 0.1),
        completed("other", 1, 0.0, 0.2),
        BlockRecord("a", "other", 0, 0, 0.001, 0.010),
        BlockRecord("a", "other", 1, 0, 0.105, 0.110),
    ]
    assert in_situ_costs(records).times_s("a") == {("small", 0, 0): pytest.approx([0.010, 0.005])}


def test_a_prediction_keeps_the_order_in_which_times_came() -> None:
    times_s = [0.002] * 30 + [0.006] * 10
    costs = InSituCosts({"b": [BlockTime("small", 1, time_s) for time_s in times_s]}, {})
    factors = costs.factors(BELIEVED)
    assert factors["b"] == pytest.approx([2 / 3] * 30 + [2.0] * 10)
    records: list[Record] = []
    found = with_in_situ_costs(BELIEVED, costs)
    Simulator(found, policy="planned", plan=SPLIT, seed=1, sink=records.append, factors=factors).run()
    ran = sorted((r.start_s, r.end_s - r.start_s) for r in records if isinstance(r, BlockRecord) and r.worker == "b")
    assert len(ran) > 3 * len(times_s)
    slow = [took_s > 0.004 for _, took_s in ran]
    assert [took_s for _, took_s in ran] == pytest.approx([0.006 if one else 0.002 for one in slow])
    first = slow.index(True) if not slow[0] else slow.index(True, slow.index(False))
    assert slow[first : first + 80] == ([True] * 10 + [False] * 30) * 2


def test_blocks_that_were_not_met_are_as_much_slower_as_those_that_were() -> None:
    found = with_in_situ_costs(BELIEVED, InSituCosts({"b": [BlockTime("small", 1, 0.006)]}, {}))
    assert found.block_s("small", "b").tolist() == pytest.approx([0.006] * BLOCKS)
    assert found.block_s("small", "a").tolist() == BELIEVED.block_s("small", "a").tolist()


def test_in_situ_costs_hold_what_agents_and_neighbours_cost() -> None:
    profile = BELIEVED.any_profile("small").model_copy(
        update={
            "fusion_saving_s": (0.001,) * (BLOCKS - 1),
            "colocation": ColocationCosts(others=2, alone=(1.5,) * BLOCKS, beside=(2.0,) * BLOCKS),
        }
    )
    instance = BELIEVED.model_copy(update={"profiles": {"small": {profile.device_class: profile}}}).on_hosts("box")
    costs = InSituCosts({"b": [BlockTime("small", block, 0.006) for block in range(BLOCKS)]}, {})
    found = with_in_situ_costs(instance, costs)
    assert found.block_s("small", "b") == pytest.approx([0.006] * BLOCKS)
    assert found.saving_s("small", "b")[1:] == pytest.approx(instance.saving_s("small", "b")[1:] * 2)
    assert "b" not in found.colocated  # what others cost is in the times
    assert found.profile("small", "b").interval is None


def test_joined_blocks_and_what_joining_saves_are_as_much_slower_as_their_session() -> None:
    profiles = {
        model: {name: profile.model_copy(update={"fusion_saving_s": (0.0005, 0.001)}) for name, profile in by.items()}
        for model, by in BELIEVED.profiles.items()
    }
    believed = BELIEVED.model_copy(update={"profiles": profiles})
    costs = InSituCosts({"b": [BlockTime("small", 0, 0.008, last_block=1), BlockTime("small", 2, 0.003)]}, {})
    found = with_in_situ_costs(believed, costs)
    assert found.sessions_s("small", "b", [(0, 1), (2, 2)])[0] == pytest.approx([0.008, 0.003])
    factor = 0.008 / believed.sessions_s("small", "b", [(0, 1)])[0][0]
    assert found.saving_s("small", "b")[1] == pytest.approx(factor * believed.saving_s("small", "b")[1])
    assert costs.factors(BELIEVED) == {"b": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("transfers", "bytes_per_s", "latency_s"),
    [
        ([(1000, 0.003), (101_000, 0.103)], 1e6, 0.002),
        ([(1000, 0.003), (2000, 0.005)], 2000 / 0.004, 0.001),
        ([(1000, 0.0005)], 1e7, 0.0004),
        ([(1000, 0.003), (101_000, 0.002)], 1e7, 0.0),
        ([(1000, 0.013), (101_000, 0.012)], 1e7, 0.0074),
        ([], 1e7, 0.001),
        ([(0, 0.002), (0, 0.004)], 1e7, 0.003),
        ([(0, 0.002), (1000, 0.004)], 5e5, 0.002),
    ],
    ids=[
        "far apart",
        "about as large",
        "sooner than the latency",
        "size tells nothing",
        "latency alone",
        "none",
        "empty tensors",
        "some empty tensors",
    ],
)
def test_bandwidth_and_latency_from_transfers(
    transfers: list[tuple[int, float]], bytes_per_s: float, latency_s: float
) -> None:
    (hop,) = with_in_situ_costs(BELIEVED, InSituCosts({}, {"wifi": transfers})).paths["a"]["b"].hops
    assert (hop.bytes_per_s, hop.latency_s) == pytest.approx((bytes_per_s, latency_s))


def test_a_worker_whose_speed_changed_is_named() -> None:
    before, after = (
        InSituCosts({"a": [BlockTime("small", 0, a_s)], "b": [BlockTime("small", 1, b_s)]}, {})
        for a_s, b_s in ((0.004, 0.002), (0.0041, 0.0025))
    )
    assert CalibrationRuns(before, after).drifted(BELIEVED) == ["b"]
    assert CalibrationRuns(before, None).drifted(BELIEVED) == []
    assert CalibrationRuns(before, after).slowness(BELIEVED)["b"] == pytest.approx((1.0, 1.25))


@contextmanager
def agents(folder: Path) -> Iterator[Coordinator]:
    with fleet(folder, "a", "b", "c") as (_, coordinator):
        yield coordinator


@pytest.mark.alone
def test_a_calibrated_run_tells_both_predictions(tmp_path: Path) -> None:
    said: list[str] = []

    def say(step: str) -> Progress:
        said.append(step)
        return lambda _done, _all: None

    deployment = small_deployment(small_instance(samples=8, block_s=0.04), SPLIT)
    found = validate(deployment, {"small": MODEL}, agents(tmp_path), calibrate_s=0.2, say=say)
    assert found.sound
    assert said.count("calibrating") == 2
    document = validation_document(found, tolerance=0.15)
    # Blocks of 32 x 32 take microseconds, with hand-overs less than a millisecond; by the profile 10 to 40.
    assert all(before < 0.9 and after < 0.9 for before, after in document["calibration"]["slowness"].values())
    assert set(document["calibration"]["by_profile_s"]) == {"urgent", "other"}
    for name, own in document["sources"].items():
        assert own["predicted"]["mean_delay_s"] < document["calibration"]["by_profile_s"][name]


@pytest.mark.parametrize("chunk", [None, 8])
def test_prompts_and_steps_of_sequences_have_factors_of_their_own(chunk: int | None) -> None:
    decode = DecodeSpec(prompt=40, max_new=12, chunk=chunk)

    def instance(prompts: float, steps: float) -> Instance:
        profile = with_sequences(
            make_profile("m", block_s=[0.004, 0.006], std_s=0.0),
            prompt=RunCurve(fixed_s=1e-3, token_s=2e-4, pair_s=1e-7).scaled(prompts),
            step=RunCurve(fixed_s=2e-3, context_s=1e-6).scaled(steps),
        )
        sources = {"s": {"rate_per_s": 1.0, "samples": 30, "decode": decode}}
        known = make_instance(profiles=[profile], workers={"a": 1.0, "b": 0.5}, sources=sources)
        return known.without_latency()  # simulated transfers end before it, real ones after it

    real, believed = instance(3.0, 1.5), instance(1.0, 1.0)
    stages = (Stage(worker="a", first_block=0, last_block=0), Stage(worker="b", first_block=1, last_block=1))
    plan = make_plan(believed, {"s": [Route(model="m", stages=stages)]})

    def times(known: Instance) -> SourceMetrics:
        records, _ = simulate(known, policy="planned", plan=plan, seed=2)
        return summarise(records, {"s": 1.0}, known.workers).sources["s"]

    records, _ = simulate(real, policy="planned", plan=plan, seed=1)
    costs = in_situ_costs(records, lambda _: decode.runs)
    found = with_in_situ_costs(believed, costs)
    for worker in ("a", "b"):
        own = {kind for kinds in costs.means_s(believed, worker).values() for kind in kinds}
        assert own == {"prompt", "step"}
        assert costs.factors(believed)[worker] == pytest.approx([1.0] * len(costs.blocks[worker]))
    assert found.run_s("m", "b", [Run(40, 0), Run(1, 50)])[:, 1] == pytest.approx(
        real.run_s("m", "b", [Run(40, 0), Run(1, 50)])[:, 1]
    )
    measured, predicted, uncalibrated = times(real), times(found), times(believed)
    for what in ("ttft_s", "tpot_s", "mean_delay_s"):
        assert getattr(predicted, what) == pytest.approx(getattr(measured, what), rel=1e-6)
        assert getattr(uncalibrated, what) < 0.8 * getattr(measured, what)


def test_sequences_that_started_again_do_not_count() -> None:
    decode = DecodeSpec(prompt=4, max_new=2)
    blocks = [
        BlockRecord("a", "s", sample, 0, float(at), at + 0.5) for sample, at in ((0, 0), (0, 1), (0, 2), (1, 3), (1, 4))
    ]
    ends = [SampleRecord("s", sample, 0.0, 9.0, "completed", origin=Origin("m"), tokens=2) for sample in (0, 1)]
    found = in_situ_costs([*blocks, *ends], lambda _: decode.runs)
    assert [(time.run, time.time_s) for time in found.blocks["a"]] == [(Run(4, 0), 0.5), (Run(1, 4), 1.0)]
