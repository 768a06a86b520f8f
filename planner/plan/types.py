"""A plan: for each source, routes with their shares (``planner/plan/v1``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from planner.base import FrozenModel

SCHEMA: Final = "planner/plan/v1"

Status = Literal["optimal", "feasible", "infeasible", "no_solution", "interrupted"]
Block = Annotated[int, Field(ge=0, le=10**6)]
"""Index of a block; the bound is far beyond any chain."""
Share = Annotated[float, Field(gt=0, le=1 + 1e-9)]
SearchStep = tuple[float, float | None, float]
"""Seconds since the start of a search, the best objective so far (None without a plan), and the bound so far."""


class Stage(FrozenModel):
    """A segment of blocks placed on a worker; ``last_block`` is inclusive."""

    worker: str
    first_block: Block
    last_block: Block
    sessions: tuple[Block, ...] = ()
    """Last block of each of the sessions that run the stage, where blocks are joined; empty if none are."""
    max_batch: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Largest batch that the stage runs, so that more urgent work does not wait too long; None for no such limit."""

    @model_validator(mode="after")
    def _sessions_cover_it(self) -> Stage:
        ends = self.sessions
        if ends and not (self.first_block <= ends[0] and ends[-1] == self.last_block and _increase(ends)):
            raise ValueError(
                f"sessions end with blocks {', '.join(map(str, ends))}; those of blocks {self.first_block} to "
                f"{self.last_block} end with ever later ones, the last with block {self.last_block}"
            )
        return self

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First and last block of each session that runs it."""
        ends = self.sessions or range(self.first_block, self.last_block + 1)
        return tuple(zip((self.first_block, *(end + 1 for end in ends)), ends, strict=False))

    @property
    def blocks(self) -> str:
        """Its blocks in words; those that are joined stand in brackets."""
        if not self.sessions:
            return f"{self.first_block}-{self.last_block}"
        return " ".join(f"[{first}-{last}]" if first < last else str(first) for first, last in self.spans)

    def session_end(self, block: int) -> int:
        """Return the last block of the session that begins with ``block``; the block itself if none does."""
        first = self.first_block
        for last in self.sessions:
            if block <= first:
                return last if block == first else block
            first = last + 1
        return block


def _increase(numbers: Sequence[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


class Route(FrozenModel):
    """The ordered stages of one sample, and the share of the source's samples that take it."""

    share: Share = 1.0
    """Fraction of the source's samples that take it, in (0, 1]."""
    model: str
    operating_point: int = 0
    """Index among the operating points of the model."""
    stages: tuple[Stage, ...] = Field(min_length=1)
    loop: Literal["home", "last"] = "home"
    """Where a sequence's tokens are fed back: at the source's worker, or at the worker of the last block, which begins
    the next run by itself."""

    @cached_property
    def workers(self) -> frozenset[str]:
        """Names of the workers of its stages."""
        return frozenset(stage.worker for stage in self.stages)


class SourcePlan(FrozenModel):
    """Routes of one source, with what is expected of them."""

    accuracy: float
    """Expected fraction of correct answers, in [0, 1]; 1 for models without operating points."""
    delay_s: float
    """Mean delay by :mod:`planner.plan.evaluate`, in seconds."""
    surrogate_delay_s: float
    """This source's delay as the objective sees it, in seconds."""
    delay_interval_s: tuple[float, float | None] | None = None
    """Interval of ``delay_s`` that follows from those of the profiles; its end is None where queues may grow without
    limit. None if no profile states one."""
    rate_interval_per_s: tuple[float, float] | None = None
    """For the goal ``throughput``: likewise of the samples per second that the plan sustains, up to those asked for."""
    p50_delay_s: float | None = None
    """Percentiles by :mod:`planner.plan.distribution`, in seconds; for sources with a deadline or percentiles only."""
    p95_delay_s: float | None = None
    p99_delay_s: float | None = None
    ttft_s: float | None = None
    """For a source of sequences: mean time from the arrival of a prompt to its first token, in seconds."""
    tpot_s: float | None = None
    """Likewise: mean time from one token to the next; None for sequences of one token."""
    miss_share: float | None = None
    """Share of samples whose delay exceeds the deadline; None without one."""
    routes: tuple[Route, ...] = Field(min_length=1)


class WorkerUse(FrozenModel):
    """Load of a worker under the plan."""

    utilisation: float
    """Share of its time for which it computes; for the goal ``makespan`` its work of the whole batch, in seconds."""
    memory_bytes: float
    """Agent, resident blocks and the largest activation."""


class NetworkUse(FrozenModel):
    """Load of a network resource under the plan."""

    utilisation: float
    """Share of the time for which it carries something; for the goal ``makespan`` as for workers."""


class WorkerEnergy(FrozenModel):
    """Power that a worker draws, on average."""

    average_power_w: float


class EnergyUse(FrozenModel):
    """Energy of the workers whose power the scenario states."""

    average_power_w: float
    """Of all these workers together."""
    energy_per_sample_j: float | None
    """Average power divided by the samples per second of all sources; it includes the power of idle workers."""
    workers: dict[str, WorkerEnergy]


class WorkerPrice(FrozenModel):
    """Value of more of a worker: by how much the objective would fall."""

    faster: float
    """If it were 10 % faster."""
    more_memory_bytes: float | None = None
    """The least additional memory that lets another block reside; none where all blocks fit."""
    more_memory: float | None = None
    """With that much more memory."""


class NetworkPrice(FrozenModel):
    """Value of more of a network: by how much the objective would fall."""

    mbit_per_s: float
    """With one more Mbit/s, on a point-to-point network on every link."""


class PlanPrices(FrozenModel):
    """Value of more of the resources, in units of the objective."""

    by: Literal["duals", "re-solve"]
    """Duals are derivatives, scaled to the step; memory is always re-solved, because residency is binary."""
    workers: dict[str, WorkerPrice]
    networks: dict[str, NetworkPrice]


class PlanWorth(FrozenModel):
    """What the plan's devices are worth."""

    times_home: float | None
    """How many times better than the whole model at home; none where limits forbid that."""
    spare: str | None = None
    """The used worker that matters least, unless samples arrive there; none if there is no other, or none was found."""
    spare_cost: float | None = None
    """By how much the best plan that was found without it is worse, relative to this one."""


class ScenarioReference(FrozenModel):
    """Which scenario file the plan was made for."""

    path: str
    """Relative to the plan file."""
    sha256: str


class _Wishes(BaseModel):
    """Options of the solver that a plan is checked against."""

    model_config = ConfigDict(strict=True)

    pins: dict[str, dict[Annotated[Block, Field(strict=False)], str]] = {}
    max_visits: Annotated[int, Field(ge=1)] | None = None


def _known_wishes(options: dict[str, Any]) -> dict[str, Any]:
    try:
        _Wishes.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return options


class PlanSpec(FrozenModel):
    """A solution of a scenario: the answer of ``planner solve``, and the input of simulation and execution."""

    schema_: Literal["planner/plan/v1"] = Field(default=SCHEMA, alias="schema")
    scenario: ScenarioReference | None = None
    chains: dict[str, str] = {}
    """``chain_sha256`` of each model the plan uses."""
    options: Annotated[dict[str, Any], AfterValidator(_known_wishes)] = {}
    """Options of the solver."""
    status: Status
    """Whether the plan is within all limits, and proven to be nearly optimal."""
    method: str
    """Method that found the plan."""
    goal: Literal["delay", "throughput", "makespan", "energy", "misses"]
    objective: float
    """Value of the surrogate objective, to which ``bound`` and ``gap`` refer, too."""
    bound: float
    """Proven: no plan has a lower objective."""
    gap: float
    """(objective − bound) / max(|objective|, 1e-9)."""
    solve_s: float
    """Time from the call to the plan, in seconds."""
    search: tuple[SearchStep, ...] = ()
    """How objective and bound approached each other: seconds since the start, the best objective so far (null without
    a plan) and the bound so far, each time that one improved; of a long search not each time. Where queueing makes a
    source late, it ends before deadlines are tightened."""
    threads: int = 1
    """Threads of the solver; with several, the same search may end with another plan."""
    max_wait_s: float | None = None
    """Time of the longest session of several blocks or samples that more urgent work may wait for, by the profiles, in
    seconds; None if there is none."""
    warning: str | None = None
    """What would help where the gap is above 10 %."""
    provenance: Literal["measured", "estimated"]
    """``estimated`` if the costs of any device class are."""
    coverage: float | None = None
    """Coverage of the intervals of the sources; None without intervals."""
    sources: dict[str, SourcePlan]
    workers: dict[str, WorkerUse]
    networks: dict[str, NetworkUse]
    energy: EnergyUse | None = None
    """None if the scenario states no power."""
    prices: PlanPrices | None = None
    worth: PlanWorth | None = None

    @property
    def summary(self) -> str:
        """Its objective, its proven optimality gap, and how it was found: one line for people."""
        proof = f"bound {self.bound:.6g}, gap {self.gap:.2%}" if self.bound > 0 else "no bound"
        return (
            f"{self.status}: {self.goal} {self.objective:.6g}, {proof} (surrogate objective), "
            f"by {self.method} in {self.solve_s:.2f} s; costs {self.provenance}"
        )
