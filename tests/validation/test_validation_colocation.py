"""What blocks cost in agents on one host, measured on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.api.profiles import profile
from planner.errors import PlannerError
from planner.profiling.store import load_profile, save_profile
from planner.runtime.processors import available_processors
from planner.validation import colocation
from tests.profiling.small_chain import SmallModel

PROCESSORS = len(available_processors())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(SmallModel(length=4).stage_model(0, 3))
    return path


@pytest.mark.skipif(PROCESSORS < 2, reason="two agents need two processors")
def test_blocks_are_measured_in_an_agent_alone_and_beside_another(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(colocation, "TURNS", 1)
    done: list[float] = []
    measured = profile(
        model,
        device_class="here",
        rounds=3,
        budget_s=0.5,
        beside=1,
        progress=lambda step, at, _total: done.append(at) if "agents" in step else None,
    )
    costs, interval = measured.colocation, measured.interval
    assert costs is not None
    assert costs.others == 1
    assert len(costs.alone) == len(measured.blocks)
    assert all(0 < alone <= beside for alone, beside in zip(costs.alone, costs.beside, strict=True))
    # Blocks of microseconds are far less than what an agent does between two of them.
    assert measured.slowdown(0.0).mean() > 1
    assert interval is not None
    total_s = sum(block.mean_s for block in measured.blocks)
    assert interval.total_s[0] <= total_s <= interval.total_s[1]
    assert done
    save_profile(measured, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == measured


@pytest.mark.parametrize("others", [0, -1, PROCESSORS])
def test_a_number_of_agents_that_no_processors_are_left_for_is_refused(model: Path, others: int) -> None:
    with pytest.raises(PlannerError, match="processors"):
        profile(model, device_class="here", beside=others)
