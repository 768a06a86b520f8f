"""The coordinator's handling of messages in the phases of a run."""

from __future__ import annotations

from typing import get_args

import pytest

from planner.execution.coordinator.collection import Collection
from planner.execution.coordinator.preparation import Preparation
from planner.execution.coordinator.supervision import Supervision
from planner.execution.wire.messages import ToCoordinator


@pytest.mark.parametrize("phase", [Preparation, Supervision, Collection])
def test_each_phase_handles_or_ignores_every_message_to_the_coordinator(phase: type) -> None:
    table = phase.HANDLERS  # type: ignore[attr-defined]
    assert table.kinds == set(get_args(ToCoordinator))
