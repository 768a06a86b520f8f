"""Energy of workers, from the shares of time in which they compute and the power that the scenario states.

A worker that is busy for the share ρ of the time draws idle + (busy − idle) · ρ on average. Networks are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.errors import Fault, PlanError
from planner.plan.types import EnergyUse, WorkerEnergy
from planner.scenario.instance import Instance


def energy_use(instance: Instance, busy: Mapping[str, float], samples_per_s: float) -> EnergyUse | None:
    """Return the average power of the workers whose power is known; None if none is.

    Parameters
    ----------
    busy
        Share of the time during which each worker computes.
    samples_per_s
        Samples of all sources that are completed per second; 0 if there are none.
    """
    powers = {name: worker.power for name, worker in instance.scenario.workers.items() if worker.power is not None}
    if not powers:
        return None
    workers = {
        name: WorkerEnergy(average_power_w=power.idle_w + (power.busy_w - power.idle_w) * busy[name])
        for name, power in powers.items()
    }
    total_w = sum(use.average_power_w for use in workers.values())
    return EnergyUse(
        average_power_w=total_w,
        energy_per_sample_j=total_w / samples_per_s if samples_per_s > 0 else None,
        workers=workers,
    )


def require_power(instance: Instance) -> None:
    """Check that the power of every worker is known.

    Raises
    ------
    PlanError
        With each worker whose power is not.
    """
    expected = "power such as {idle: 2 W, busy: 8 W} for every worker"
    faults = [
        Fault("the goal energy needs it", f"workers.{name}.power", None, expected)
        for name, worker in instance.scenario.workers.items()
        if worker.power is None
    ]
    if faults:
        raise PlanError(faults)
