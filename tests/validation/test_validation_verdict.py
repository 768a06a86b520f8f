"""The verdict of a validation: it can say no, and it says why."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from planner.execution.coordinator.run_result import RunResult
from planner.execution.wire.frames import Tensors
from planner.model.chain import TensorSpec
from planner.profiling.types import WHOLE_ERROR
from planner.runtime.input_pool import input_pool
from planner.runtime.providers import PROVIDERS
from planner.runtime.session import BlockSession
from planner.runtime.tolerance import HALF_TOLERANCE, TOLERANCE, Tolerance, base_tolerance
from planner.scenario.instance import Instance
from planner.scenario.types import PowerSpec
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord, TransferRecord
from planner.trace.store import RecordStore
from planner.validation.document import validation_document
from planner.validation.limits import Limits, ReferenceRuns, measure_limits, reference_runs
from planner.validation.numerics import Numerics, compare
from planner.validation.references import References, references
from planner.validation.summary import describe_validation
from planner.validation.validate import HOST_LIMIT, WAIT_LIMIT, judge
from planner.validation.verdict import Interval, Validation
from tests.execution.rig import BLOCKS, MODEL, SPLIT, small_instance

SEED = 3
INSTANCE = small_instance(samples=20)
SPECS = MODEL.chain.cuts[0].tensors
WHOLE = {"small": MODEL.stage_model(0, BLOCKS - 1)}
POOLS = {
    source: input_pool(SPECS, seed=SEED, source_index=index, samples=20)
    for index, source in enumerate(INSTANCE.sources)
}


@cache
def expected() -> References:
    return references(INSTANCE, WHOLE, POOLS)


def right_outputs() -> dict[tuple[str, int], Tensors]:
    return {
        (source, sample): expected()[source, "small"][sample % len(POOLS[source])]
        for source in INSTANCE.sources
        for sample in range(20)
    }


def limits(**bases: float) -> Limits:
    return Limits({(model, "cpu"): Tolerance("cpu", "float32", base, 0.0) for model, base in bases.items()})


def compared(outputs: dict[tuple[str, int], Tensors]) -> Numerics:
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin("small")) for key in outputs]
    return compare(INSTANCE, outputs, ended, expected(), limits(small=TOLERANCE))


def test_outputs_of_the_whole_model_agree_with_it() -> None:
    assert compared(right_outputs()) == Numerics(40, 0.0, 0.0, tolerances=limits(small=TOLERANCE).tolerances)


def test_half_precision_at_a_cut_is_held_against_its_own_rounding() -> None:
    plain, half = (TensorSpec("t", dtype, (1, 4)) for dtype in ("float32", "float16"))
    rounded = {key: {"t3": own["t3"] * np.float32(1.001)} for key, own in right_outputs().items()}
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin("small")) for key in rounded]
    for cuts, unequal in (([[plain], [plain], [plain]], 40), ([[plain], [half], [plain]], 0)):
        found = compare(INSTANCE, rounded, ended, expected(), limits(small=base_tolerance(cuts)))
        assert (found.unequal, found.equal) == (unequal, not unequal)
    assert base_tolerance([[half], [plain], [half]]) == TOLERANCE  # inputs and outputs are rounded either way


@pytest.mark.parametrize("rounded", ["small", "half"])
def test_each_model_is_held_against_its_own_tolerance(rounded: str) -> None:
    instance = INSTANCE.model_copy(update={"profiles": INSTANCE.profiles | {"half": INSTANCE.profiles["small"]}})
    known = {**expected(), ("other", "half"): expected()["other", "small"]}
    used = {"urgent": "small", "other": "half"}
    outputs = {
        (source, sample): {"t3": own["t3"] * np.float32(1.001)} if used[source] == rounded else own
        for (source, sample), own in right_outputs().items()
    }
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin(used[key[0]])) for key in outputs]
    found = compare(instance, outputs, ended, known, limits(small=TOLERANCE, half=HALF_TOLERANCE))
    assert found.equal is (rounded == "half")
    assert found.unequal == (20 if rounded == "small" else 0)


def test_what_was_expected_is_what_the_session_makes() -> None:
    made = BlockSession(WHOLE["small"], optimise=False).run(POOLS["other"][13])
    np.testing.assert_array_equal(right_outputs()["other", 13]["t3"], made["t3"])


@pytest.mark.parametrize("fault", ["one value", "not finite", "another sample's", "another shape", "none"])
def test_one_wrong_output_is_found(fault: str) -> None:
    outputs = right_outputs()
    name = MODEL.chain.cuts[-1].tensors[0].name
    tensor = outputs["other", 13][name].copy()
    if fault == "one value":
        tensor[0, 5] += 1e-3 * np.abs(tensor).max()
    elif fault == "not finite":
        tensor[0, 5] = np.nan
    elif fault == "another shape":
        tensor = tensor[:, :-1]
    else:
        tensor = outputs["other", 12][name]
    outputs["other", 13] = {name: tensor} if fault != "none" else {}
    found = compared(outputs)
    assert not found.equal
    assert found.max_rel_error >= 0.9e-3


def test_no_output_is_no_agreement() -> None:
    assert not compared({}).equal


def test_outputs_that_were_not_received_are_counted_and_no_agreement() -> None:
    outputs = right_outputs()
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin("small")) for key in outputs]
    del outputs["other", 13]
    found = compare(INSTANCE, outputs, ended, expected(), limits(small=TOLERANCE))
    assert (found.samples, found.not_received, found.unequal, found.equal) == (39, 1, 0, False)
    assert verdict(simulated(), numerics=found).faults == ("the outputs of 1 completed samples were not received",)


def verdict(
    measured: list[Record], late_blocks: int = 0, waited_s: float = 0.0, numerics: Numerics | None = None
) -> Validation:
    predicted, _ = simulate(INSTANCE, policy="planned", plan=SPLIT, seed=SEED)
    measurement = RunResult(records=RecordStore(measured), late_blocks={"b": late_blocks}, waited_s={"a": waited_s})
    return judge(
        INSTANCE,
        predicted,
        measurement,
        numerics or Numerics(40, 0.0, 0.0),
        dict.fromkeys(INSTANCE.sources, 16),
        emulated=True,
    )


def test_the_energy_of_prediction_and_run_follows_from_the_time_that_workers_computed() -> None:
    assert verdict(simulated()).energy is None
    power = {"power": PowerSpec(idle_w=2.0, busy_w=8.0)}
    instance = INSTANCE.with_workers({INSTANCE.workers[0]: power})
    records = simulated()
    numerics, inputs = Numerics(40, 0.0, 0.0), dict.fromkeys(INSTANCE.sources, 16)
    judged = judge(instance, records, RunResult(records=RecordStore(records)), numerics, inputs, emulated=True)
    energy = validation_document(judged, 0.15)["energy"]
    assert energy["predicted"] == energy["measured"]
    busy = judged.workers[INSTANCE.workers[0]].predicted
    assert energy["predicted"]["average_power_w"] == pytest.approx(2 + 6 * busy)
    assert list(energy["predicted"]["workers"]) == [INSTANCE.workers[0]]


def simulated(slower: float = 1.0) -> list[Record]:
    """The simulated run, with all delays of samples ``slower`` times as long."""
    records, _ = simulate(INSTANCE, policy="planned", plan=SPLIT, seed=SEED)
    return [
        SampleRecord(r.source, r.sample, r.created_s, r.created_s + slower * r.delay_s, r.status)
        if isinstance(r, SampleRecord)
        else r
        for r in records
    ]


def test_a_run_as_predicted_passes_and_a_slower_one_does_not() -> None:
    assert verdict(simulated()).passed(0.01)
    slow = verdict(simulated(slower=1.2))
    assert slow.sound
    assert not slow.passed(0.15)
    assert slow.passed(0.25)
    document = validation_document(slow, 0.15)
    assert document["passed"] is False
    assert document["sources"]["urgent"]["error_ratio"] == pytest.approx(0.2)


def judged_within(interval: Interval | None, slower: float) -> Validation:
    of_one = {"urgent": interval} if interval is not None else {}
    predicted, records = simulated(), simulated(slower=slower)
    numerics, inputs = Numerics(40, 0.0, 0.0), dict.fromkeys(INSTANCE.sources, 16)
    run = RunResult(records=RecordStore(records))
    return judge(INSTANCE, predicted, run, numerics, inputs, emulated=True, intervals=of_one)


def test_a_delay_that_the_errors_of_the_profile_explain_passes() -> None:
    predicted_s = verdict(simulated()).sources["urgent"].predicted.mean_delay_s or 0.0
    for slower, low, high, inside in ((1.2, 0.9, 1.3, True), (1.2, 0.9, 1.1, False), (0.7, 0.8, 1.3, False)):
        interval = Interval(low * predicted_s, high * predicted_s, 0.95)
        validation = judged_within(interval, slower)
        assert validation.sources["urgent"].inside is inside
        by_name = {check.name: check for check in validation.checks(0.15)}
        assert by_name["mean delay of urgent"].passed is inside
        assert not by_name["mean delay of other"].passed  # no interval is known for it
        document = validation_document(validation, 0.15)["sources"]
        assert document["urgent"]["prediction_interval_s"] == pytest.approx((interval.low_s, interval.high_s))
        assert (document["urgent"]["inside"], document["other"]["inside"]) == (inside, None)
        assert str(interval) in by_name["mean delay of urgent"].expected
    close = judged_within(Interval(0.99 * predicted_s, 1.01 * predicted_s, 0.95), 1.1)
    assert close.passed(0.15)  # within the tolerance, though not in the interval


@pytest.mark.parametrize(("high", "vague"), [(1.2, False), (3.0, True)])
def test_a_wide_interval_is_called_vague(high: float, vague: bool) -> None:  # noqa: FBT001 - a table
    predicted_s = verdict(simulated()).sources["urgent"].predicted.mean_delay_s or 0.0
    told = describe_validation(judged_within(Interval(predicted_s, high * predicted_s, 0.95), 1.0), 0.15)
    assert any("vague" in str(line) for line in told) is vague


def test_a_lost_sample_and_a_failed_one_are_counted_and_do_not_pass() -> None:
    records = simulated()
    last = max(index for index, record in enumerate(records) if isinstance(record, SampleRecord))
    lost = verdict(records[:last] + records[last + 1 :])
    assert (lost.lost, lost.failed, lost.sound) == (1, 0, False)
    gone = records[last]
    assert isinstance(gone, SampleRecord)
    failure = SampleRecord(gone.source, gone.sample, gone.created_s, gone.finished_s, "failed", "b, block 1: no memory")
    failed = verdict([*records[:last], failure])
    assert (failed.lost, failed.failed, failed.sound) == (0, 1, False)
    assert not failed.passed(1.0)


def test_what_failed_or_was_lost_is_named_with_the_worker_at_which_it_was_last() -> None:
    records = [record for record in simulated() if (record.source, record.sample) != ("other", 7)]
    end = next(r for r in simulated() if isinstance(r, SampleRecord) and (r.source, r.sample) == ("other", 7))
    block, transfer = (
        BlockRecord("a", "other", 7, 0, 0.25, 0.5),
        TransferRecord("wifi", "a", "c", "other", 7, 1, 9, 0.5, 0.75),
    )
    at_a = "last seen at a, which finished block 0 at 0.500 s"
    at_c = "last seen at c, which received cut 1 from a at 0.750 s"
    for work, told in (
        ([], "no worker reported any work on it"),
        ([block], at_a),
        ([transfer, block], at_c),
    ):
        assert verdict([*records, *work]).faults == (f"other, sample 7 was lost: {told}",)
    failure = SampleRecord("other", 7, end.created_s, end.finished_s, "failed", "no memory")
    assert verdict([*records, block, failure]).faults == (f"other, sample 7 failed: no memory; {at_a}",)
    assert validation_document(verdict(records), 0.1)["faults"] == list(verdict(records).faults)


def test_of_many_samples_the_first_are_named_and_the_others_counted() -> None:
    faults = verdict([record for record in simulated() if not isinstance(record, SampleRecord)]).faults
    assert [fault.partition(" was lost")[0] for fault in faults] == [
        *(f"urgent, sample {number}" for number in range(10)),
        "30 more were lost",
    ]


def test_an_output_that_differs_is_named_with_its_error_and_who_computed_it() -> None:
    outputs = right_outputs()
    outputs["other", 13] = {"t3": outputs["other", 13]["t3"] * np.float32(1.001)}
    outputs["urgent", 2] = {}
    assert verdict(simulated(), numerics=compared(right_outputs())).faults == ()
    missing, scaled = verdict(simulated(), numerics=compared(outputs)).faults
    assert missing.startswith(
        "urgent, sample 2: t3 is missing, not finite, or of another shape; computed as block 0 at a, "
    )
    assert scaled.startswith("other, sample 13: t3 differs by 1.00e-03; tolerance 1.0e-04; computed as block 0 at a, ")
    assert scaled.endswith("block 2 at c")
    assert verdict(simulated(), numerics=compared({})).faults == ("no outputs to compare",)


def reference(instance: Instance = INSTANCE) -> dict[str, ReferenceRuns]:
    cuts = [cut.tensors for cut in MODEL.chain.cuts]
    runs = reference_runs("small", WHOLE["small"], instance, cuts=cuts, inputs=POOLS, expected=expected())
    return {"small": runs}


def test_each_provider_has_its_own_limit_and_a_sample_that_of_those_that_computed_it() -> None:
    """The GPU is one that no machine of this test has, so its limit follows from its precision."""
    records: list[Record] = [
        replace(record, worker="b") if isinstance(record, BlockRecord) and record.source == "other" else record
        for record in simulated()
    ]
    found = measure_limits(reference(), records, {"a": "cpu", "b": "cpu", "c": "a-gpu"})
    assert found.tolerances["small", "cpu"].whole_error is not None
    assert found.tolerances["small", "cpu"].limit == TOLERANCE
    assert found.tolerances["small", "a-gpu"].limit == HALF_TOLERANCE
    workers = {
        key: {r.worker for r in records if isinstance(r, BlockRecord) and (r.source, r.sample) == key}
        for key in right_outputs()
    }
    assert {("c" in own) for own in workers.values()} == {True, False}
    for key, own in workers.items():
        assert found.of("small", *key) == (HALF_TOLERANCE if "c" in own else TOLERANCE)
    outputs = {key: {"t3": own["t3"] * np.float32(1.001)} for key, own in right_outputs().items()}
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin("small")) for key in outputs]
    differing = compare(INSTANCE, outputs, ended, expected(), found)
    assert differing.unequal == sum("c" not in own for own in workers.values())


def test_the_error_of_a_provider_that_this_machine_lacks_is_that_of_its_profile() -> None:
    (device_class, profile), *others = INSTANCE.profiles["small"].items()
    on_gpu = profile.model_copy(update={"environment": {"provider": "a-gpu", WHOLE_ERROR: 3e-4}})
    instance = INSTANCE.model_copy(update={"profiles": {"small": {device_class: on_gpu, **dict(others)}}})
    found = measure_limits(reference(instance), simulated(), dict.fromkeys("abc", "a-gpu"))
    assert found.tolerances["small", "a-gpu"].whole_error == 3e-4
    assert found.of("small", "other", 0) == pytest.approx(6e-4)


def test_the_last_line_says_which_checks_failed() -> None:
    def last(validation: Validation, tolerance: float) -> str:
        return str(list(describe_validation(validation, tolerance))[-1])

    good = verdict(simulated(), numerics=compared(right_outputs()))
    assert last(good, 0.01) == "passed (mean delays within 1 %)"
    assert all(check.passed for check in good.checks(0.01))
    outputs = right_outputs()
    outputs["other", 13] = {}
    bad = verdict(simulated(slower=1.2), numerics=compared(outputs))
    told = last(bad, 0.0001)
    assert told.startswith("NOT PASSED: outputs (1 of 40 differ, largest relative error inf; expected ")
    assert "mean delay of urgent (+20.0% against the prediction; expected within 0.01 %)" in told
    assert "samples" not in told
    document = validation_document(bad, 0.0001)
    assert [check["name"] for check in document["checks"]] == [
        "samples", "outputs", "mean delay of urgent", "mean delay of other",
    ]  # fmt: skip
    assert [check["passed"] for check in document["checks"]] == [True, False, False, False]
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))
    for records, failed in ((simulated()[:-1], ["samples"]), ([], ["samples", "outputs"])):
        lost = verdict(records, numerics=compared(right_outputs() if records else {}))
        assert [check.name for check in lost.checks(1.0) if not check.passed][: len(failed)] == failed
        assert not lost.passed(1.0)


def test_reduced_precision_is_named_with_what_full_precision_costs() -> None:
    tolerance = Tolerance("cuda", PROVIDERS["cuda"].precision, TOLERANCE, 3.6e-4, "cuda-fp32", 2.0)
    numerics = Numerics(40, 1.0, 3.6e-4, tolerances={("small", "cuda"): tolerance})
    validation = verdict(simulated(), numerics=numerics)
    assert validation.passed(0.01)
    assert (
        "small on cuda: TF32 and graph optimisation alone change the whole model's outputs by 3.6e-04; "
        "7.2e-04 is allowed; `--provider cuda-fp32` computes in float32 and takes 2.00 times as long"
    ) in list(describe_validation(validation, 0.01))
    (shown,) = validation_document(validation, 0.01)["numerics"]["tolerances"]
    assert (shown["precision"], shown["whole_error"], shown["exact_provider"]) == ("TF32", 3.6e-4, "cuda-fp32")


def test_the_host_is_named_when_too_many_blocks_were_late() -> None:
    blocks = sum(isinstance(record, BlockRecord) and record.worker == "b" for record in simulated())
    assert blocks > 0
    assert not verdict(simulated(), late_blocks=int(HOST_LIMIT * blocks)).host_limited
    assert verdict(simulated(), late_blocks=int(HOST_LIMIT * blocks) + 1).host_limits == ("b",)


def test_the_host_is_named_when_a_worker_stood_ready_without_a_processor() -> None:
    busy_s = sum(r.end_s - r.start_s for r in simulated() if isinstance(r, BlockRecord) and r.worker == "a")
    assert not verdict(simulated(), waited_s=0.9 * WAIT_LIMIT * busy_s).host_limited
    assert verdict(simulated(), waited_s=1.1 * WAIT_LIMIT * busy_s).host_limits == ("a",)
