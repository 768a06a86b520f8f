"""The least relaxations for shared routes where instances are too large for :mod:`planner.solvers.methods.mip.elastic`.

Column generation finds the shares that miss the limits least, each limit's part counted alike; then, among the routes
that it met on the way, the fewest limits are sought that have to give way at all, and the least amounts with no more.
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
from planner.solvers.core.search_state import Options
from planner.solvers.routes.pricing import cheapest_route

ROUNDS = 20
Column = tuple[int, Choice]
Limit = tuple[str, int]


def shared_relaxations(problem: Problem, columns: Iterable[Column], options: Options) -> Relaxations | None:
    """Give the least relaxations, by kind and number, with ``columns`` as the first routes.

    Only the last step has a time limit; None where it ran out.
    """
    known = dict.fromkeys(columns)
    for _ in range(ROUNDS):
        program = _Shares(problem, list(known))
        prices = program.prices()
        fresh = {(source, cheapest_route(problem, source, prices)[1]) for source in range(len(problem.demands))}
        if fresh <= known.keys():
            break
        known.update(dict.fromkeys(fresh))
    return _Shares(problem, list(known)).fewest(options)


def _add_rows(program: Program, lower: Array, upper: Array, entries: Any) -> None:
    """Add rows whose ``entries`` are a sparse array [rows, columns]."""
    matrix = sparse.csr_array(entries)
    program.add_rows(lower, upper, matrix.indptr[:-1], matrix.indices, matrix.data.astype(float))


class _Shares:
    """The limits as rows of a linear program over shares of routes, each divided by what it allows.

    ``uses`` [limits, n] is what routes take of them; with a slack for each limit, uses · share − slack ≤ 1, or for
    accuracies ≤ −1.
    """

    def __init__(self, problem: Problem, columns: list[Column]) -> None:
        self.problem, self.columns = problem, columns
        self.limits: dict[Limit, int] = {}
        self.allows: list[float] = []
        entries: list[tuple[int, int, float]] = []
        for column, (source, choice) in enumerate(columns):
            cost, demand = problem.cost(source, choice), problem.demands[source]
            load = demand.volume * cost.seconds / problem.cap
            for resource, part in zip(cost.resources.tolist(), load.tolist(), strict=True):
                if part > 0:
                    entries.append((self._limit("overload", resource, problem.cap), column, part))
            if np.isfinite(demand.deadline_s):
                row = self._limit("late_s", source, demand.deadline_s)
                entries.append((row, column, cost.unloaded_s / demand.deadline_s))
            if demand.min_accuracy > 0:
                row = self._limit("inaccuracy", source, demand.min_accuracy)
                entries.append((row, column, -problem.variants[choice.variant].accuracy / demand.min_accuracy))
        rows, places, parts = zip(*entries, strict=True)
        self.uses = sparse.csr_array((parts, (rows, places)), shape=(len(self.limits), len(columns)))
        self.bound = np.array([-1.0 if kind == "inaccuracy" else 1.0 for kind, _ in self.limits])
        sources = [source for source, _ in columns]
        ones = np.ones(len(columns))
        self.whole = sparse.csr_array(
            (ones, (sources, range(len(columns)))), shape=(len(problem.demands), len(columns))
        )

    def _limit(self, kind: str, number: int, allows: float) -> int:
        if (kind, number) not in self.limits:
            self.limits[kind, number] = len(self.limits)
            self.allows.append(allows)
        return self.limits[kind, number]

    def prices(self) -> Prices:
        """Give what the limits cost where they are missed least."""
        count, columns = len(self.limits), len(self.columns)
        program = Program()
        program.add_columns(np.zeros(columns + count), np.full(columns + count, INFINITY))
        _add_rows(program, np.full(count, -INFINITY), self.bound, sparse.hstack([self.uses, -sparse.eye_array(count)]))
        self._share_all(program, count)
        program.set_costs(np.concatenate([np.zeros(columns), np.ones(count)]))
        answer = program.run()
        if answer.duals is None:
            raise SolveError("the linear program of limits has no solution", where="method colgen", value=answer.end)
        price = -answer.duals[:count] / np.array(self.allows)
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
        for (own, number), row in self.limits.items():
            if own == kind:
                of_kind[number] = price[row]
        return of_kind

    def _share_all(self, program: Program, others: int) -> None:
        """Let the shares of each source add up to 1; ``others`` is how many columns follow those of shares."""
        ones = np.ones(len(self.problem.demands))
        _add_rows(program, ones, ones, sparse.hstack([self.whole, sparse.csr_array((len(ones), others))]))

    def fewest(self, options: Options) -> Relaxations | None:
        """Give the fewest limits that have to give way, and with no more of them the least amounts."""
        columns, count = len(self.columns), len(self.limits)
        most = self._most()
        none, below = np.zeros(columns), np.full(count, -INFINITY)
        slack, gives = sparse.eye_array(count), sparse.diags_array(most)
        program = Program(threads=options.threads, stop=options.stop, settings={"random_seed": options.seed})
        program.add_columns(
            np.zeros(columns + 2 * count),
            np.concatenate([none + 1.0, most, np.ones(count)]),
            integer=np.arange(columns + count, columns + 2 * count),
        )
        _add_rows(program, below, self.bound, sparse.hstack([self.uses, -slack, 0 * slack]))
        _add_rows(program, below, np.zeros(count), sparse.hstack([sparse.csr_array((count, columns)), slack, -gives]))
        self._share_all(program, 2 * count)
        program.set_costs(np.concatenate([none, np.zeros(count), np.ones(count)]))
        first = program.run(options.time_limit_s)
        if first.values is None:
            return None
        binaries = range(columns + count, columns + 2 * count)
        program.add_row(-INFINITY, round(first.objective), dict.fromkeys(binaries, 1.0))
        program.set_costs(np.concatenate([none, np.ones(count), np.zeros(count)]))
        second = program.run(options.time_limit_s)
        best = first.values if second.values is None else second.values
        missed = best[columns : columns + count] * np.array(self.allows)
        chosen = best[columns + count :] > 0.5
        return {limit: float(missed[row]) for limit, row in self.limits.items() if chosen[row] and missed[row] > 1e-9}

    def _most(self) -> Array:
        """Give the most that each limit could ever be missed by: with each source on its dearest route."""
        of_source = np.zeros((len(self.limits), len(self.problem.demands)))
        uses = self.uses.tocoo()
        sources = np.array([source for source, _ in self.columns])
        np.maximum.at(of_source, (uses.row, sources[uses.col]), uses.data)
        return np.asarray(np.maximum(of_source.sum(axis=1), 1.0))
