from __future__ import annotations

import signal
from typing import Any

import pytest

from planner.errors import ProfileError, RuntimeSessionError
from planner.profiling import sampling
from planner.profiling.measure import measure
from planner.runtime.providers import Provider
from planner.runtime.runner import ChainRunner
from tests.profiling.small_chain import SmallModel, profile


def test_a_measured_profile_describes_its_chain() -> None:
    model = SmallModel(length=4)
    points = profile().operating_points[:0]
    measured = measure(model, device_class="here", rounds=5, budget_s=20, operating_points=points)
    chain = model.chain
    assert measured.model.sha256 == chain.model_sha256
    assert measured.chain_sha256 == chain.chain_sha256
    assert measured.provenance == "measured"
    assert measured.cut_bytes == tuple(cut.bytes for cut in chain.cuts)
    assert [block.name for block in measured.blocks] == [block.name for block in chain.blocks]
    assert all(block.mean_s > 0 and block.load_s > 0 for block in measured.blocks)
    assert len(measured.fusion_saving_s) == 3
    assert measured.exits[0].result_bytes == 40
    assert measured.segment_error is not None
    assert measured.segment_error.segments == 6  # of the 9 segments that are not the whole chain, 3 fit the overhead
    environment = measured.environment
    assert environment["rounds"] == 5
    assert environment["partial"] is False
    assert environment["precision"] == "float32"
    assert environment["threads"] == 1
    assert measured.whole_error is None  # the CPU's outputs are the reference
    assert environment["session_config"]["session.qdq_matmulnbits_accuracy_level"] == "1"


def test_a_provider_with_separate_memory() -> None:
    # onnxruntime's IO binding also works on the CPU, so this covers the code path for GPUs.
    bound = Provider("bound", ("CPUExecutionProvider",), device="cpu")
    measured = measure(SmallModel(), device_class="here", provider=bound, rounds=3)
    assert measured.environment["provider"] == "bound"
    assert measured.environment["memory"] == "computed"
    assert measured.whole_error is not None
    assert measured.whole_error < 1e-5
    assert all(block.mean_s > 0 for block in measured.blocks)


def test_a_device_is_kept_busy_before_it_is_measured_and_its_runs_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    run_segment = ChainRunner.run_segment

    def counted(self: ChainRunner, first: int, last: int, tensors: Any) -> Any:
        ran.append(last - first)
        return run_segment(self, first, last, tensors)

    monkeypatch.setattr(ChainRunner, "run_segment", counted)
    monkeypatch.setattr(sampling, "CLOCKS_S", 0.05)
    recording = Provider(
        "recording", ("CPUExecutionProvider",), device="cpu", graph_options={"enable_cuda_graph": "1"}
    )  # fmt: skip
    assert len(measure(SmallModel(), device_class="here", provider=recording, rounds=3).blocks) == 3
    busy = ran.count(2)
    assert busy > 1
    ran.clear()
    measure(SmallModel(), device_class="here", rounds=3)
    assert ran.count(2) < busy


def test_several_threads() -> None:
    measured = measure(SmallModel(), device_class="here", threads=2, rounds=3)
    assert measured.environment["threads"] == 2


def test_a_chain_of_one_block() -> None:
    measured = measure(SmallModel(length=1), device_class="here", rounds=3)
    assert measured.segment_error is None
    assert measured.fusion_saving_s == ()
    assert len(measured.blocks) == 1


def test_the_budget_bounds_the_rounds() -> None:
    measured = measure(SmallModel(), device_class="here", rounds=10**6, budget_s=0.2)
    assert 3 <= measured.environment["rounds"] < 10**6
    assert measured.environment["partial"] is False


def test_interrupted_after_some_rounds_keeps_them() -> None:
    calls: list[int] = []

    def interrupt(*_: int) -> None:
        calls.append(1)
        if len(calls) == 3 + 4:  # three loads, then four rounds
            signal.raise_signal(signal.SIGINT)

    measured = measure(SmallModel(), device_class="here", rounds=100, progress=interrupt)
    assert measured.environment["partial"] is True
    assert measured.environment["rounds"] == 4
    assert measured.environment["memory"] == "computed"
    assert measured.blocks[0].activation_bytes == SmallModel().chain.blocks[0].activation_bytes


def test_interrupted_too_early_keeps_nothing() -> None:
    def interrupt(*_: int) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        measure(SmallModel(), device_class="here", progress=interrupt)


def test_progress_ends_at_100_percent() -> None:
    seen: list[tuple[int, int]] = []
    measure(SmallModel(), device_class="here", rounds=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (100, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 2}, "rounds: too few rounds; found 2; expected 3 or more"),
        ({"budget_s": 0.0}, "budget: no time for a measurement"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        measure(SmallModel(), device_class="here", **options)


class BrokenModel(SmallModel):
    def block_model(self, index: int) -> bytes:
        return b"nonsense" if index == 1 else super().block_model(index)


def test_a_rejected_block_is_named() -> None:
    with pytest.raises(RuntimeSessionError, match=r"^small, block 1: onnxruntime rejects the model: "):
        measure(BrokenModel(), device_class="here")


def test_an_unknown_provider() -> None:
    with pytest.raises(RuntimeSessionError, match="provider"):
        measure(SmallModel(), device_class="here", provider="quantum")
