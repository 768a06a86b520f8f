"""Energy of a validation: by the stated power and the time that workers computed, in the prediction and in the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.plan.types import EnergyUse
from planner.scenario.instance import Instance
from planner.simulation.replications import run_energy
from planner.trace.metrics import RunMetrics


@dataclass(frozen=True)
class EnergyComparison:
    """Energy in the prediction and in the run."""

    predicted: EnergyUse
    measured: EnergyUse

    def document(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"predicted": self.predicted.model_dump(), "measured": self.measured.model_dump()}


def compare_energy(instance: Instance, predicted: RunMetrics, measured: RunMetrics) -> EnergyComparison | None:
    """Return the energy of both; None if the scenario states no power."""
    of_prediction, of_run = run_energy(instance, predicted), run_energy(instance, measured)
    return EnergyComparison(of_prediction, of_run) if of_prediction and of_run else None
