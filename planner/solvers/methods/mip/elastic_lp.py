"""The elastic filter for shared routes on instances too large for :mod:`planner.solvers.methods.mip.elastic`.

Column generation finds the shares with the least sum of relative violations. A mixed-integer program over the routes
generated on the way then finds the fewest limits to relax, and with that number fixed the least amounts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse

from planner.errors import SolveError
from planner.solvers.core.highs import INFINITY, Program
from planner.solvers.core.infeasibility import Relaxations
from planner.solvers.core.problem import Array, Choice, Problem
from planner.solvers.core.resource_prices import Prices
from planner.solvers.core.scale import MOST, ratio
from planner.solvers.core.search_state import Options
from planner.solvers.routes.pricing import cheapest_routes

MAX_ROUNDS = 20
"""Maximum number of pricing rounds; later routes hardly reduce the violations."""

Column = tuple[int, Choice]
"""A source and one of its routes."""
Limit = tuple[str, int]
"""Kind and index of a limit, as in :data:`~planner.solvers.core.infeasibility.Relaxations`."""


def shared_relaxations(problem: Problem, columns: Iterable[Column], options: Options) -> Relaxations | None:
    """Return the fewest limits to relax and the least amounts, with ``columns`` as the first routes.

    Only the last step has a time limit; the result is None if it passed.
    """
    known = dict.fromkeys(columns)
    for _ in range(MAX_ROUNDS):
        program = _Shares(problem, list(known))
        prices = program.prices()
        fresh = {(source, choice) for source, (_, choice) in enumerate(cheapest_routes(problem, prices))}
        if fresh <= known.keys():
            break
        known.update(dict.fromkeys(fresh))
    return _Shares(problem, list(known)).fewest(options)


def _add_rows(program: Program, lower: Array, upper: Array, entries: Any) -> None:
    """Add rows whose ``entries`` are a sparse array [rows, columns]."""
    matrix = sparse.csr_array(entries)
    program.add_rows(lower, upper, matrix.indptr[:-1], matrix.indices, matrix.data.astype(float))


class _Shares:
    """The limits as rows of a linear program over shares of routes, each divided by its right-hand side.

    ``uses`` [limits, columns] is what each route takes of each limit. With a slack per limit,
    uses · share − slack ≤ 1, or ≤ −1 for accuracies.
    """

    def __init__(self, problem: Problem, columns: list[Column]) -> None:
        self.problem, self.columns = problem, columns
        self.limits: dict[Limit, int] = {}
        self.allowed: list[float] = []
        entries: list[tuple[int, int, float]] = []
        for column, (source, choice) in enumerate(columns):
            cost, demand = problem.cost(source, choice), problem.demands[source]
            load = np.minimum(demand.volume * cost.seconds / problem.caps[cost.resources], MOST)
            for resource, part in zip(cost.resources.tolist(), load.tolist(), strict=True):
                if part > 0:
                    entries.append((self._limit("overload", resource, float(problem.caps[resource])), column, part))
            if np.isfinite(demand.deadline_s):
                row = self._limit("late_s", source, demand.deadline_s)
                entries.append((row, column, ratio(cost.unloaded_s, demand.deadline_s, MOST)))
            if demand.min_accuracy > 0:
                row = self._limit("inaccuracy", source, demand.min_accuracy)
                entries.append((row, column, -problem.variants[choice.variant].accuracy / demand.min_accuracy))
        rows, indices, parts = zip(*entries, strict=True)
        self.uses = sparse.csr_array((parts, (rows, indices)), shape=(len(self.limits), len(columns)))
        self.right_side = np.array([-1.0 if kind == "inaccuracy" else 1.0 for kind, _ in self.limits])
        sources = [source for source, _ in columns]
        ones = np.ones(len(columns))
        self.whole = sparse.csr_array(
            (ones, (sources, range(len(columns)))), shape=(len(problem.demands), len(columns))
        )

    def _limit(self, kind: str, index: int, allowed: float) -> int:
        if (kind, index) not in self.limits:
            self.limits[kind, index] = len(self.limits)
            self.allowed.append(allowed)
        return self.limits[kind, index]

    def prices(self) -> Prices:
        """Return the shadow prices of the limits where their violations are least."""
        count, columns = len(self.limits), len(self.columns)
        program = Program()
        program.add_columns(np.zeros(columns + count), np.full(columns + count, INFINITY))
        _add_rows(
            program, np.full(count, -INFINITY), self.right_side, sparse.hstack([self.uses, -sparse.eye_array(count)])
        )
        self._share_all(program, count)
        program.set_costs(np.concatenate([np.zeros(columns), np.ones(count)]))
        result = program.run()
        if result.duals is None:
            raise SolveError("the linear program of limits has no solution", where="method colgen", value=result.end)
        price = -result.duals[:count] / np.array(self.allowed)
        sources = len(self.problem.demands)
        of_resource = self._prices_of("overload", price, len(self.problem.resources))
        return Prices(
            of_class=np.repeat(of_resource[None, :], len(self.problem.classes.weight), axis=0),
            latency=np.zeros(sources),
            second=self._prices_of("late_s", price, sources),
            accuracy=self._prices_of("inaccuracy", price, sources),
        )

    def _prices_of(self, kind: str, price: Array, count: int) -> Array:
        of_kind = np.zeros(count)
        for (limit_kind, index), row in self.limits.items():
            if limit_kind == kind:
                of_kind[index] = price[row]
        return of_kind

    def _share_all(self, program: Program, others: int) -> None:
        """Add rows that make the shares of each source add up to 1; ``others`` columns follow those of shares."""
        ones = np.ones(len(self.problem.demands))
        _add_rows(program, ones, ones, sparse.hstack([self.whole, sparse.csr_array((len(ones), others))]))

    def fewest(self, options: Options) -> Relaxations | None:
        """Return the fewest limits to relax, and with that number fixed the least amounts."""
        columns, count = len(self.columns), len(self.limits)
        most = self._largest_violations()
        none, below = np.zeros(columns), np.full(count, -INFINITY)
        slack, relaxed = sparse.eye_array(count), sparse.diags_array(most)
        program = Program(threads=options.threads, deadline=options.deadline, settings={"random_seed": options.seed})
        program.add_columns(
            np.zeros(columns + 2 * count),
            np.concatenate([none + 1.0, most, np.ones(count)]),
            integer=np.arange(columns + count, columns + 2 * count),
        )
        _add_rows(program, below, self.right_side, sparse.hstack([self.uses, -slack, 0 * slack]))
        _add_rows(program, below, np.zeros(count), sparse.hstack([sparse.csr_array((count, columns)), slack, -relaxed]))
        self._share_all(program, 2 * count)
        program.set_costs(np.concatenate([none, np.zeros(count), np.ones(count)]))
        first = program.run()
        if first.values is None:
            return None
        binaries = range(columns + count, columns + 2 * count)
        program.add_row(-INFINITY, round(first.objective), dict.fromkeys(binaries, 1.0))
        program.set_costs(np.concatenate([none, np.ones(count), np.zeros(count)]))
        second = program.run()
        best = first.values if second.values is None else second.values
        amount = best[columns : columns + count] * np.array(self.allowed)
        chosen = best[columns + count :] > 0.5
        return {limit: float(amount[row]) for limit, row in self.limits.items() if chosen[row] and amount[row] > 1e-9}

    def _largest_violations(self) -> Array:
        """Return an upper bound on the violation of each limit [limits]: with each source on its worst route."""
        of_source = np.zeros((len(self.limits), len(self.problem.demands)))
        uses = self.uses.tocoo()
        sources = np.array([source for source, _ in self.columns])
        np.maximum.at(of_source, (uses.row, sources[uses.col]), uses.data)
        return np.asarray(np.maximum(of_source.sum(axis=1), 1.0))
