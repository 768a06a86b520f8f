"""A run of an int8 model, cut where the whole model is fused, passes: it rounds as the whole model does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import deploy
from planner.model.load import load_chain
from planner.runtime.providers import PROVIDERS, Provider
from planner.runtime.tolerance import TOLERANCE
from planner.validation.document import validation_document
from planner.validation.validate import validate
from tests.execution.fleet import Threads
from tests.execution.memory_network import MemoryNetwork
from tests.execution.rig import small_plan
from tests.instances import make_instance, make_profile
from tests.runtime.test_runtime_tolerance import quantised

BLOCKS = 4

BOUND = Provider("bound", ("CPUExecutionProvider",), device="cpu", precision="bfloat16", exact="cpu")
"""A provider with memory of its own: a GPU's, which no test machine has, but for the device."""


@contextmanager
def agents(folder: Path) -> Iterator[Coordinator]:
    network, threads = MemoryNetwork(), Threads(folder)
    with Coordinator(network.connect("_coordinator")) as coordinator:
        threads.start("a", network.connect("a"))
        threads.start("b", network.connect("b"), BOUND)
        try:
            coordinator.await_agents(["a", "b"], 10.0)
            yield coordinator
        finally:
            threads.close()


def test_a_quantised_model_on_two_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "bound", BOUND)
    model = load_chain(quantised(tmp_path / "q.onnx"), max_blocks=BLOCKS, name="small")
    profile = make_profile("small", block_s=[1e-4] * BLOCKS, cut_bytes=[cut.bytes for cut in model.chain.cuts])
    sources = {name: {"worker": "a", "rate_per_s": 50.0, "samples": 10} for name in ("urgent", "other")}
    instance = make_instance(profiles=[profile], workers={"a": 1.0, "b": 1.0}, sources=sources)
    plan = small_plan([("a", 0, 1), ("b", 2, 3)], [("a", 0, 3)])
    found = validate(deploy(instance, plan, {"small": model}, policy="planned"), {"small": model}, agents(tmp_path))
    assert found.sound
    assert found.numerics.max_rel_error > TOLERANCE  # or the limit of other models would do
    assert found.measurement.providers == {"a": "cpu", "b": "bound"}
    shown = validation_document(found, 0.15)["numerics"]["tolerances"]
    assert [(own["provider"], own["precision"]) for own in shown] == [("bound", "bfloat16"), ("cpu", "float32")]
    assert all(own["tolerance"] == pytest.approx(2 * own["whole_error"]) for own in shown)
    assert shown[0]["exact_time_ratio"] > 0
