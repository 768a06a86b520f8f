"""The coordinator's handling of messages in the phases of a run."""

from __future__ import annotations

from typing import get_args

import pytest

from planner.execution.coordinator.run_controller import RunController
from planner.execution.wire.messages import ToCoordinator


@pytest.mark.parametrize("phase", ["_PREPARING", "_RUNNING", "_COLLECTING"])
def test_each_phase_handles_or_ignores_every_message_to_the_coordinator(phase: str) -> None:
    assert getattr(RunController, phase).kinds == set(get_args(ToCoordinator))
