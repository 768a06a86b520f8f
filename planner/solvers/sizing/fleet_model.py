"""The mixed-integer program over fleets: how many devices of each kind, with a lower bound on their price.

All devices of a kind are one worker here, whose capacity grows with their number n_k: the program has one integer per
kind, however many devices there are, and no symmetry. It is a relaxation in four ways, so its optimum is a lower bound.
Routes may be shared; a kind's load may be divided evenly among its devices; nothing is paid for moving between two
devices of one kind; and of the waiting, only that of a source for its own samples counts. That waiting follows from

    N ≥ n G(a / n),   G(σ) = σ + σ² / (2 (1 − σ)),

where a is the load of one source on n equal devices and N the mean number of its samples there: Pollaczek-Khinchine
with constant service times and no other source is the least that there can be, and by convexity an even division is
best. The right-hand side is jointly convex in a and n, and its tangents are linear in both.

References
----------
J. N. Hooker and G. Ottosson, "Logic-based Benders decomposition", Mathematical Programming 96 (2003): fleets that have
no plan are excluded one after another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyomo.environ as pyo

from planner.plan.surrogate import UTILISATION_CAP, congestion, congestion_slope
from planner.scenario.instance import Instance
from planner.solvers.core.build import build_problem
from planner.solvers.core.equations import Equation
from planner.solvers.core.problem import Array, Problem
from planner.solvers.core.room import fitting
from planner.solvers.core.scale import MemoryUnit
from planner.solvers.core.search_state import Options
from planner.solvers.methods.mip.model import FIRST_TANGENTS, TOLERANCES, build_model
from planner.solvers.methods.mip.program import ModelProgram
from planner.solvers.sizing.fleet import Counts, Fleet, Kind

LEAST_KAPPA = 0.5
"""κ of constant service times, the least possible."""

EQUATIONS: Final[Mapping[str, Equation]] = {
    "devices": Equation("Number of devices of a kind.", r"n_i \in \lbrace 0, 1, \dots, \bar n_i \rbrace"),
    "own_load": Equation("Utilisation of a resource by a source.", r"b_{sr} \ge 0"),
    "own_number": Equation("Mean number of a source's samples at a resource, without other sources.", r"N_{sr} \ge 0"),
    "more": Equation(
        "Whether there is one more device of a kind than in an excluded fleet.", r"\delta_i \in \lbrace 0, 1 \rbrace"
    ),
    "price": Equation("The price of all devices.", r"\min \sum_{i} \gamma_i n_i"),
    "owned": Equation(
        "A block runs on a kind only if there is a device of it.", r"x_{soli} \le n_i \quad \forall s, o, l, i"
    ),
    "capacity_of_devices": Equation(
        "The capacity of a kind, and of its links, grows with the number of devices; without any it is 0.",
        r"\epsilon^c_r \le c_r n_i \quad \forall r, i",
    ),
    "memory_of_devices": Equation(
        "The memory of a kind grows with the number of devices.",
        r"-M_i \le \epsilon^M_i \le M_i (n_i - 1) \quad \forall i",
    ),
    "own_work": Equation(
        "The utilisation of a resource by each source with a largest mean delay.",
        r"b_{sr} = \sum_{a} \lambda_s t_{ar} f_{sa} \quad \forall s: T_s < \infty, r",
    ),
    "own_waiting": Equation(
        "The mean number lies above tangents to the perspective of G with κ = 1/2: a source waits for its own samples.",
        r"N_{sr} \ge G'(\theta) b_{sr} + (G(\theta) - \theta G'(\theta)) n_r "
        r"\quad \forall s: T_s < \infty, r, \theta",
    ),
    "mean_delay": Equation(
        "By Little's law, the mean number of samples keeps the largest mean delay.",
        r"\sum_{r} N_{sr} + \lambda_s \sum_{a} \tau_a f_{sa} \le \lambda_s T_s \quad \forall s: T_s < \infty",
    ),
    "excluded": Equation(
        "A fleet n' without a plan, and all smaller ones, are excluded: there is one more device of some kind.",
        r"n_i \ge (n'_i + 1) \delta_i \quad \forall i, \qquad \sum_{i} \delta_i \ge 1",
    ),
}
"""What the program over fleets adds to the mixed-integer program, by name."""


class FleetModel:
    """The program over fleets, from which fleets without a plan are excluded one after another.

    Parameters
    ----------
    instance
        The scenario with one device of each kind.
    room
        Factor by which caps and deadlines are tightened; below 1 the optimum is a roomier fleet, and no bound.
    """

    def __init__(self, instance: Instance, kinds: Sequence[Kind], room: float = 1.0) -> None:
        self.kinds = kinds
        self.problem = build_problem(instance)
        self.workers = [self.problem.workers.index(kind.worker) for kind in kinds]
        self.caps = np.minimum(UTILISATION_CAP, self.problem.usable) * room
        self.growing = self._growing_resources()
        self.relaxed = self._without_devices(room)
        self.model = build_model(self.relaxed, elastic=True)
        pyo.TransformationFactory("core.relax_integer_vars").apply_to(self.model)
        self._add_devices()
        self._add_capacity()
        self._add_own_waiting()
        self.model.excluded = pyo.ConstraintList(doc=EQUATIONS["excluded"].doc)
        self.model.more = pyo.VarList(domain=pyo.Binary, doc=EQUATIONS["more"].doc)

    def _without_devices(self, room: float) -> Problem:
        """Return the problem in which devices have no time, for slacks to add it; one class of sources."""
        problem, growing = self.problem, list(self.growing)
        usable = self.caps.copy()
        usable[growing] = 0.0
        changes: dict[str, Any] = {"resident": fitting(problem)} if problem.memory_binds else {}
        demands = [
            dataclasses.replace(demand, priority=1.0, deadline_s=demand.deadline_s * room) for demand in problem.demands
        ]
        return dataclasses.replace(problem, goal="delay", demands=tuple(demands), max_utilisation=usable, **changes)

    def _growing_resources(self) -> dict[int, list[int]]:
        """Return the resources whose capacity grows with the number of devices, each with the kinds it grows with."""
        number = {kind.worker: index for index, kind in enumerate(self.kinds)}
        growing = {worker: [index] for index, worker in enumerate(self.workers)}
        for resource, name in enumerate(self.problem.resources):
            network, _, ends = name.partition(":")  # a link is network:sender>receiver, a shared medium has no colon
            of_link = [number[end] for end in ends.split(">") if network and end in number]
            if of_link:
                growing[resource] = of_link
        return growing

    def _copies(self, resource: int) -> list[Any]:
        """Return upper bounds on the number of copies of a resource: 1, or expressions in the numbers of devices."""
        of_kinds = self.growing.get(resource, [])
        if len(of_kinds) < 2:
            return [self.model.devices[kind] for kind in of_kinds] or [1.0]
        first, second = of_kinds
        return [
            self.model.devices[first] * self.kinds[second].most,
            self.model.devices[second] * self.kinds[first].most,
        ]

    def _add_devices(self) -> None:
        """Add the numbers of devices and their price; a block runs on a kind only if there is a device of it."""
        model, kinds = self.model, self.kinds
        model.devices = pyo.Var(
            range(len(kinds)),
            domain=pyo.NonNegativeIntegers,
            bounds=lambda _, kind: (0, kinds[kind].most),
            doc=EQUATIONS["devices"].doc,
        )
        kind_of = {worker: kind for kind, worker in enumerate(self.workers)}
        model.owned = pyo.Constraint(
            [key for key in model.runs if key[3] in kind_of],
            rule=lambda _, *key: model.runs[key] <= model.devices[kind_of[key[3]]],
            doc=EQUATIONS["owned"].doc,
        )
        model.price = pyo.Objective(
            expr=pyo.quicksum(kind.price * model.devices[index] for index, kind in enumerate(kinds)),
            doc=EQUATIONS["price"].doc,
        )

    def _add_capacity(self) -> None:
        """Turn the slacks of the elastic model into capacity of devices, and fix the others."""
        model, growing = self.model, self.growing
        for slacks in (model.late, model.inaccuracy):
            slacks.fix(0.0)
        model.capacity_of_devices = pyo.ConstraintList(doc=EQUATIONS["capacity_of_devices"].doc)
        for resource, slack in model.overload.items():
            if resource not in growing:
                slack.fix(0.0)
                continue
            for copies in self._copies(resource):
                model.capacity_of_devices.add(slack <= float(self.caps[resource]) * copies)
        model.memory_of_devices = pyo.ConstraintList(doc=EQUATIONS["memory_of_devices"].doc)
        for worker, slack in model.lack.items():
            if worker in self.workers and self.problem.memory_binds:
                room = MemoryUnit.of(float(self.problem.memory_bytes[worker])).room
                slack.setlb(-room)
                model.memory_of_devices.add(slack <= room * (model.devices[self.workers.index(worker)] - 1))
            else:
                slack.fix(0.0)

    def _add_own_waiting(self) -> None:
        """Add that each source with a deadline waits for its own samples at least."""
        model, demands = self.model, self.relaxed.demands
        timed = [source for source, demand in enumerate(demands) if np.isfinite(demand.deadline_s)]
        load: dict[tuple[int, int], list[Any]] = {}
        latency: dict[int, list[Any]] = {source: [] for source in timed}
        for variable, source, arc in model.arcs:
            if source not in latency:
                continue
            latency[source].append(arc.latency_s * variable)
            for resource, seconds in arc.seconds:
                load.setdefault((source, resource), []).append(demands[source].volume * seconds * variable)
        model.own_load = pyo.Var(list(load), domain=pyo.NonNegativeReals, doc=EQUATIONS["own_load"].doc)
        model.own_number = pyo.Var(list(load), domain=pyo.NonNegativeReals, doc=EQUATIONS["own_number"].doc)
        model.own_work = pyo.Constraint(
            list(load),
            rule=lambda _, *key: model.own_load[key] == pyo.quicksum(load[key]),
            doc=EQUATIONS["own_work"].doc,
        )
        model.own_waiting = pyo.ConstraintList(doc=EQUATIONS["own_waiting"].doc)
        tangents = [_tangent(point) for point in FIRST_TANGENTS]
        for source, resource in load:
            # Fewer copies mean more waiting: of several upper bounds on their number any one is valid.
            copies = self._copies(resource)[0]
            for slope, offset in tangents:
                model.own_waiting.add(
                    model.own_number[source, resource] >= slope * model.own_load[source, resource] + offset * copies
                )
        model.mean_delay = pyo.Constraint(
            timed,
            rule=lambda _, source: (
                pyo.quicksum(number for key, number in model.own_number.items() if key[0] == source)
                + demands[source].volume * pyo.quicksum(latency[source])
                <= demands[source].volume * demands[source].deadline_s
            ),
            doc=EQUATIONS["mean_delay"].doc,
        )

    def exclude(self, counts: Counts) -> None:
        """Exclude a fleet without a plan, and all fleets with no more devices of any kind."""
        terms = []
        for index, kind in enumerate(self.kinds):
            if counts[kind.name] < kind.most:
                more = self.model.more.add()
                self.model.excluded.add(self.model.devices[index] >= (counts[kind.name] + 1) * more)
                terms.append(more)
        self.model.excluded.add(pyo.quicksum(terms) >= 1 if terms else self.model.devices[0] <= -1)

    def cheapest(self, time_limit_s: float, options: Options) -> Fleet:
        """Return the cheapest fleet that is not excluded."""
        settings = {"random_seed": options.seed, "mip_rel_gap": 0.0, "mip_abs_gap": 0.0, **TOLERANCES}
        program = ModelProgram(self.model, threads=options.threads, deadline=options.deadline, settings=settings)
        result = program.run(time_limit_s)
        counts = None
        if result.values is not None:
            values = [round(self.model.devices[index].value) for index in range(len(self.kinds))]
            counts = {kind.name: count for kind, count in zip(self.kinds, values, strict=True)}
        bound = result.bound if np.isfinite(result.bound) else 0.0
        return Fleet(result.end, counts, bound)


def _tangent(point: float) -> tuple[float, float]:
    """Return slope and offset of the tangent to G at a utilisation: n G(a / n) ≥ slope · a + offset · n."""
    sigma: Array = np.array(point)
    value, slope = float(congestion(sigma, LEAST_KAPPA)), float(congestion_slope(sigma, LEAST_KAPPA))
    return slope, value - slope * point
