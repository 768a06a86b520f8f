"""A run of agents on a plug-in execution provider, held against its own tolerance."""

from __future__ import annotations

import pytest

from planner.errors import RuntimeSessionError
from planner.execution.coordinator.deployment import deploy
from planner.execution.launch.local import local_agents
from planner.runtime.plugins import installed
from planner.runtime.providers import find_provider
from planner.runtime.tolerance import TOLERANCE
from planner.validation.validate import validate
from tests.execution.rig import MODEL, SPLIT, small_instance


def _has_device(name: str) -> bool:
    try:
        return name in installed() and find_provider(name).plugin is not None
    except RuntimeSessionError:
        return False


class Whole:
    """The small model in one piece."""

    chain = MODEL.chain

    def model_bytes(self) -> bytes:
        return MODEL.stage_model(0, len(MODEL.chain) - 1)


@pytest.mark.parametrize("name", ["openvino", "webgpu"])
def test_agents_run_a_split_model_on_a_plugin(name: str) -> None:
    if not _has_device(name):
        pytest.skip(f"onnxruntime-ep-{name} is not installed, or has no device on this machine")
    instance = small_instance(samples=6)
    deployment = deploy(instance, SPLIT, {"small": MODEL}, policy="planned")  # type: ignore[dict-item]
    agents = local_agents(instance.workers, options=("--provider", name))
    found = validate(deployment, {"small": Whole()}, agents)
    assert found.sound, found.faults
    assert set(found.measurement.providers.values()) == {name}
    tolerance = found.numerics.tolerances["small", name]
    assert tolerance.whole_error is not None
    assert found.numerics.max_rel_error <= tolerance.limit
    assert tolerance.limit >= TOLERANCE
