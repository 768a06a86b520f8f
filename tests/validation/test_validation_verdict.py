"""The verdict of a validation: it can say no, and it says why."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from planner.execution.coordinator.run_result import RunResult
from planner.execution.wire.frames import Tensors
from planner.model.chain import TensorSpec
from planner.runtime.check import HALF_TOLERANCE, TOLERANCE, tolerance_of
from planner.runtime.input_pool import input_pool
from planner.runtime.session import BlockSession
from planner.scenario.types import PowerSpec
from planner.simulation.simulator import simulate
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord, TransferRecord
from planner.trace.store import RecordStore
from planner.validation.numerics import Numerics, References, compare, references
from planner.validation.validate import HOST_LIMIT, WAIT_LIMIT, Validation, judge, validation_document
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


def compared(outputs: dict[tuple[str, int], Tensors]) -> Numerics:
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin("small")) for key in outputs]
    return compare(INSTANCE, outputs, ended, expected(), {"small": TOLERANCE})


def test_outputs_of_the_whole_model_agree_with_it() -> None:
    assert compared(right_outputs()) == Numerics(40, 0.0, 0.0)


def test_half_precision_at_a_cut_is_held_against_its_own_rounding() -> None:
    plain, half = (TensorSpec("t", dtype, (1, 4)) for dtype in ("float32", "float16"))
    rounded = {key: {"t3": own["t3"] * np.float32(1.001)} for key, own in right_outputs().items()}
    ended = [SampleRecord(*key, 0.0, 1.0, "completed", origin=Origin("small")) for key in rounded]
    for cuts, unequal in (([[plain], [plain], [plain]], 40), ([[plain], [half], [plain]], 0)):
        found = compare(INSTANCE, rounded, ended, expected(), {"small": tolerance_of(cuts)})
        assert (found.unequal, found.equal) == (unequal, not unequal)
    assert tolerance_of([[half], [plain], [half]]) == TOLERANCE  # inputs and outputs are rounded either way


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
    found = compare(instance, outputs, ended, known, {"small": TOLERANCE, "half": HALF_TOLERANCE})
    assert found.equal is (rounded == "half")
    assert found.unequal == (20 if rounded == "small" else 0)


def test_what_was_expected_is_what_the_session_makes() -> None:
    made = BlockSession(WHOLE["small"]).run(POOLS["other"][13])
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
    assert scaled.startswith("other, sample 13: t3 differs by 1.00e-03; tolerance 1e-04; computed as block 0 at a, ")
    assert scaled.endswith("block 2 at c")
    assert verdict(simulated(), numerics=compared({})).faults == ("no outputs to compare",)


def test_the_host_is_named_when_too_many_blocks_were_late() -> None:
    blocks = sum(isinstance(record, BlockRecord) and record.worker == "b" for record in simulated())
    assert blocks > 0
    assert not verdict(simulated(), late_blocks=int(HOST_LIMIT * blocks)).host_limited
    assert verdict(simulated(), late_blocks=int(HOST_LIMIT * blocks) + 1).host_limits == ("b",)


def test_the_host_is_named_when_a_worker_stood_ready_without_a_processor() -> None:
    busy_s = sum(r.end_s - r.start_s for r in simulated() if isinstance(r, BlockRecord) and r.worker == "a")
    assert not verdict(simulated(), waited_s=0.9 * WAIT_LIMIT * busy_s).host_limited
    assert verdict(simulated(), waited_s=1.1 * WAIT_LIMIT * busy_s).host_limits == ("a",)
