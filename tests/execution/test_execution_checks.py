"""What does not fit the run is refused, and refusals are reported at a limited rate."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from planner.errors import ExecuteError
from planner.execution.wire import checks as admission
from planner.execution.wire.checks import Refusals, check_fits
from planner.execution.wire.frames import Frame, Tensors
from planner.execution.wire.messages import Deploy, WarmUpInput
from planner.runtime.inputs import random_inputs
from tests.execution.rig import MODEL, SPLIT, small_deployment, small_instance

TENSORS = random_inputs(MODEL.chain.cuts[1].tensors, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("model", "cut", "tensors", "message"),
    [
        ("large", 1, TENSORS, "no such model; found 'large'"),
        ("small", 9, TENSORS, "no such cut; found 9; expected 0 to 3"),
        ("small", 2, TENSORS, "no such tensor; found 't1'"),
        ("small", 1, TENSORS | {"t1": np.zeros(3, np.float32)}, r"does not fit the cut; found 'float32 \[3\]'"),
        ("small", 1, TENSORS, None),
    ],
)
def test_inputs_of_a_warm_up_fit_their_cut(model: str, cut: int, tensors: Tensors, message: str | None) -> None:
    deployment = small_deployment(small_instance(), SPLIT)
    deploy = Deploy(
        run="r", instance=deployment.instance, plan=SPLIT, policy="planned", seed=3, models=dict(deployment.models),
        resident={}, paced=False,
    )  # fmt: skip
    frame = Frame(WarmUpInput(run="r", model=model, cut=cut), tensors, "_coordinator")
    if message is None:
        check_fits(deploy, frame)
    else:
        with pytest.raises(ExecuteError, match=message):
            check_fits(deploy, frame)


def test_a_flood_of_refusals_causes_few_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    told: list[tuple[str, str]] = []
    refusals = Refusals(lambda sender, what: told.append((sender, what)))
    for number in range(1000):
        refusals.add("a", f"message {number}")
    assert told == [("a", f"message {number}") for number in range(20)]
    clock.now_s += 1.0
    for _ in range(10):
        refusals.add("b", "another")
    assert told[20:] == [("b", "another (980 more were refused before)")]
    clock.now_s += 3600.0
    for _ in range(100):
        refusals.add("a", "later")
    assert told[21:] == [("a", "later (9 more were refused before)"), *[("a", "later")] * 19]
