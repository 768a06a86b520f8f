"""Find the cheapest devices of a catalogue that a scenario needs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from planner.api.plan import Plan
from planner.api.progress import Progress, reporting, show_progress
from planner.api.scenario import Scenario, scenario_of
from planner.errors import PlannerWarning
from planner.files import StrPath
from planner.plan.types import Status
from planner.scenario.catalogue import Catalogue, copies, load_catalogue
from planner.scenario.instance import Instance
from planner.solvers.sizing.fleet import Kind
from planner.solvers.sizing.method import FleetSolution
from planner.solvers.sizing.method import size as size_fleet
from planner.solvers.solve import Routes
from planner.tables import Printable, Table


class Sizing(Printable):
    """Devices to buy, with a plan on them, or the reasons why none suffice; it is true if there is a plan.

    Made by :func:`planner.size`.

    Parameters
    ----------
    scenario
        The scenario without the devices.
    size_s
        Time that the search took, in seconds.
    """

    def __init__(self, scenario: Scenario, catalogue: Catalogue, solution: FleetSolution, size_s: float) -> None:
        self._catalogue, self._solution = catalogue, solution
        self.size_s = size_s
        sized = scenario.with_devices(catalogue, solution.counts) if solution.plan is not None else scenario
        self.plan = Plan(sized, solution.plan, status=solution.status, reasons=solution.reasons)
        """The plan on the devices; its scenario has them as workers."""

    def __bool__(self) -> bool:
        return bool(self.plan)

    @property
    def status(self) -> Status:
        """``optimal``, ``feasible`` or ``interrupted``; without a plan also ``infeasible`` or ``no_solution``."""
        return self._solution.status

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why no devices suffice: limits that would have to give way even with all of them."""
        return self._solution.reasons

    @property
    def devices(self) -> dict[str, int]:
        """How many devices of each kind to buy; empty if none suffice."""
        return dict(self._solution.counts)

    @property
    def cost(self) -> float:
        """Price of all devices; infinite if none suffice."""
        return self._solution.price

    @property
    def bound(self) -> float:
        """Proven lower bound of the cost."""
        return self._solution.bound

    @property
    def gap(self) -> float:
        """Relative gap between cost and bound; infinite if no devices suffice."""
        return self._solution.gap

    @property
    def scenario(self) -> Scenario:
        """The scenario with the devices as workers; without them if none suffice."""
        return self.plan.scenario

    def contents(self) -> Iterator[Table | str]:
        """Return the devices, their cost with its gap, and the plan; or why none suffice."""
        if not self:
            yield from self.plan.contents()
            return
        spec = self._catalogue.spec
        currency = f" {spec.currency}" if spec.currency else ""
        yield Table(
            "Devices to buy",
            ("device", ">count", ">at most", f">price{currency}", f">together{currency}"),
            [
                (
                    name,
                    str(self.devices[name]),
                    str(device.count),
                    f"{device.price:g}",
                    f"{device.price * self.devices[name]:g}",
                )
                for name, device in spec.devices.items()
            ],
        )
        yield (
            f"{self.status}: cost {self.cost:g}{currency}, bound {self.bound:g}, gap {self.gap:.2%}, "
            f"in {self.size_s:.2f} s"
        )
        yield from self.plan.contents()

    def to_dict(self) -> dict[str, Any]:
        """Return the devices, their cost and the contents of the plan's file; without a plan, ``blame``."""
        spec = self._catalogue.spec
        document: dict[str, Any] = {"status": self.status, "currency": spec.currency, "size_s": self.size_s}
        if not self:
            return document | {"bound": self.bound, "blame": list(self.reasons)}
        return document | {
            "cost": self.cost,
            "bound": self.bound,
            "gap": self.gap,
            "devices": {
                name: {"count": self.devices[name], "price": device.price} for name, device in spec.devices.items()
            },
            "plan": self.plan.to_dict(),
        }

    def save(self, folder: StrPath) -> tuple[Path, Path]:
        """Write ``scenario.yaml`` with the devices and ``plan.json`` to a folder, and return their paths.

        Raises
        ------
        PlanError
            If there is no plan.
        """
        _ = self.plan.spec  # before anything is written
        return self.scenario.save(Path(folder) / "scenario.yaml"), self.plan.save(Path(folder) / "plan.json")

    def __repr__(self) -> str:
        bought = ", ".join(f"{count} {name}" for name, count in self.devices.items() if count) or "no devices"
        return f"<Sizing: {self.status}, {bought}, cost {self.cost:g}>"


def size(
    scenario: Scenario | StrPath,
    catalogue: StrPath | Mapping[str, Any],
    *,
    method: str = "auto",
    routes: Routes | None = None,
    time_limit_s: float = 60.0,
    gap: float = 1e-4,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = show_progress,
) -> Sizing:
    """Determine the cheapest devices with which a scenario keeps all rates, deadlines and accuracies.

    The workers of the scenario are there already and cost nothing.

    Parameters
    ----------
    scenario
        The scenario, or its file.
    catalogue
        The catalogue of devices with their prices: its file, or a mapping with the keys of one.
    method, routes, seed, threads
        As for :func:`planner.solve`, which makes the plans.
    time_limit_s
        Time after which the cheapest devices so far are returned, in seconds.
    gap
        Relative gap between cost and bound at which the devices count as optimal.
    progress
        Callback ``progress(step, done, total)``. By default, a bar on a terminal; None for none.

    Returns
    -------
    Sizing
        If no devices suffice, it is false; ``reasons`` say why.

    Raises
    ------
    ScenarioError, ProfileError
        If the scenario or the catalogue is invalid, or a device class has no profiles.
    SolveError
        If the goal is ``makespan``, a source has no rate, or the method is unknown.
    """
    loaded = scenario_of(scenario)
    for warning in loaded.warnings:
        warnings.warn(warning, PlannerWarning, stacklevel=2)
    known = load_catalogue(catalogue, loaded.spec)
    single = copies(known.spec, dict.fromkeys(known.spec.devices, 1), {*loaded.workers, *loaded.spec.networks})
    kinds = [Kind(name, device.price, device.count, single[name][0]) for name, device in known.spec.devices.items()]

    def fleet(counts: Mapping[str, int]) -> Instance:
        return loaded.with_devices(known, counts).instance

    def report(elapsed_s: float, best: float, bound: float) -> None:
        if progress is not None:
            progress(f"sizing: best {best:g}, bound {bound:g}", min(elapsed_s, time_limit_s - 1e-9), time_limit_s)

    started_s = time.monotonic()
    with reporting(progress, "sizing"):
        solution = size_fleet(
            fleet,
            kinds,
            method=method,
            routes=routes,
            time_limit_s=time_limit_s,
            gap=gap,
            seed=seed,
            threads=threads,
            progress=report,
        )
    return Sizing(loaded, known, solution, time.monotonic() - started_s)
