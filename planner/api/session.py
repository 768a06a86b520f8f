"""A plan that runs on agents and takes samples from a program."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import TracebackType

from planner.api.applying import APPLY_TIME_LIMIT_S, plan_for
from planner.api.auto import AutoApply, Meter
from planner.api.difference import Difference, difference
from planner.api.plan import Plan, plan_of
from planner.api.scenario import Scenario
from planner.execution.coordinator.coordinator import READY_TIMEOUT_S
from planner.execution.coordinator.deployment import HOME_TIMEOUT_S, Deployment, deploy
from planner.execution.coordinator.room import check_room
from planner.execution.coordinator.run_result import Observer
from planner.execution.launch.local import local_agents
from planner.execution.launch.remote import check_share, remote_agents, there_at_first
from planner.execution.session.session import LIMIT, LiveSession, check_limit
from planner.execution.session.source import SourceHandle
from planner.execution.wire.diagnostics import LinkSpeed
from planner.files import StrPath, several
from planner.heap import trim_heap
from planner.plan.drift import DriftRules
from planner.solvers.replan.process import ReplanProcess


class Session(AbstractContextManager["Session"]):
    """Agents that run a plan and take samples, as a context manager.

    ::

        with planner.Session(plan) as session:
            future = session.source("gate-camera").submit({"input": image})
            outputs = future.result().outputs

    On leaving, the session waits for the samples in flight; after an exception it does not, and they fail. The plan is
    solved again when workers leave, come back or become slow. :meth:`apply` replaces it, and the scenario, meanwhile.

    Parameters
    ----------
    plan
        The plan, or its file.
    scenario
        Scenario, or its file, to use in place of the plan's.
    connect
        ``HOST:PORT`` of running agents, or several. Without any, an agent process per worker is started on this
        machine.
    cert_dir
        The coordinator's folder made by ``planner certs``.
    insecure
        Whether agents on other than the loopback interface may do without certificates.
    policy
        Name of the policy.
    limit
        Maximum number of samples of a source in flight.
    later
        Workers that may join after the start; with ``connect`` only.
    share
        Share of each agent's memory and processor time that is enough, such as 0.5; with ``connect`` only. Agents then
        take other runs, too, as long as all shares together are no more than 1. None: no other run beside this one.
    take_over
        Whether to take agents over from another run, which then ends; with ``connect`` only.
    home_timeout_s
        Time in seconds for which a source waits for its own worker, if that is away; its samples wait, too, and are
        sent to the worker when it is back, again where they had been. After that time they fail.
    observer
        Receives what happens, in addition to the futures.
    ready_timeout_s
        Time within which all agents must have loaded their blocks, in seconds.
    auto
        Rules by which the session makes its plan again by itself, for the rates and speeds that it measures, and takes
        the old one back where that was worse; what it does is told as incidents. None: it does not.

    Raises
    ------
    PlannerError
        If there is no plan, or it does not fit its scenario; on entering, if an agent did not come or could not load
        its blocks, or another run holds it.
    """

    def __init__(
        self,
        plan: Plan | StrPath,
        *,
        scenario: Scenario | StrPath | None = None,
        connect: str | Sequence[str] = (),
        cert_dir: StrPath | None = None,
        insecure: bool = False,
        policy: str = "planned",
        limit: int = LIMIT,
        later: str | Collection[str] = (),
        share: float | None = None,
        take_over: bool = False,
        home_timeout_s: float = HOME_TIMEOUT_S,
        observer: Observer | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        auto: DriftRules | None = None,
    ) -> None:
        check_limit(limit)
        connect, later = several(connect), several(later)
        check_share(share, connect)
        self.plan = plan_of(plan, scenario)
        """The plan that takes new samples."""
        self._applying = threading.Lock()
        self._workers = there_at_first(self.plan.scenario.workers, later, connect)
        self._connect = connect
        self._cert_dir = Path(cert_dir) if cert_dir is not None else None
        self._insecure = insecure
        self._policy = policy
        self._limit = limit
        self._later = later
        self._share = share
        self._take_over = take_over
        self._home_timeout_s = home_timeout_s
        self._observer = observer or Observer()
        self._rules = auto
        self._meter = Meter(self._observer)
        self._auto: AutoApply | None = None
        self._ready_timeout_s = ready_timeout_s

    def __enter__(self) -> Session:
        self._live.__enter__()
        if self._rules is not None:
            self._auto = AutoApply(
                self._rules, self._meter, lambda: self.plan, self._replace, self._observer.on_incident
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._auto is not None:
            self._auto.stop()
        self._live.__exit__(kind, error, trace)

    def source(self, name: str) -> SourceHandle:
        """Return the handle that takes the samples of a source.

        Raises
        ------
        ExecuteError
            If the scenario has no such source.
        """
        return self._live.source(name)

    @property
    def links(self) -> Mapping[tuple[str, str], LinkSpeed]:
        """Speed of the links from one worker to another, measured by the samples' own transfers.

        Each has ``bytes_per_s``, the number of ``transfers`` and, by the sender's last report, ``age_s``, the time in
        seconds since the last one. Only transfers of 32 KiB or more over an idle link count.
        """
        return self._live.links

    def apply(
        self, new: Plan | Scenario | StrPath, *, time_limit_s: float = APPLY_TIME_LIMIT_S, dry_run: bool = False
    ) -> Difference:
        """Replace the plan while the session goes on, and return how the new one differs; no sample is lost.

        The agents load what they need for it while the old plan goes on. Samples that are submitted from then on follow
        the new plan, and those in flight end on their old routes. Sources that it adds can be used when this returns;
        those that it lacks take no more samples. Workers that it adds must run as agents which the others can reach; a
        session that has started its agents itself starts those, too.

        Parameters
        ----------
        new
            A plan or its file (JSON); or a scenario or its file (YAML), which is solved in a process of its own,
            beginning with the present routes.
        time_limit_s
            Time limit of that search, in seconds.
        dry_run
            Whether to return the difference only, and change nothing.

        Raises
        ------
        PlannerError
            If there is no plan, or it does not fit its scenario or the agents; the old plan goes on.
        """
        if dry_run:
            return difference(self.plan, plan_for(new, self.plan, time_limit_s, self._share))
        found = self._replace(new, time_limit_s)
        if self._auto is not None:
            self._auto.reset()
        return found

    def _replace(self, new: Plan | Scenario | StrPath, time_limit_s: float = APPLY_TIME_LIMIT_S) -> Difference:
        with self._applying:
            plan = plan_for(new, self.plan, time_limit_s, self._share)
            found = difference(self.plan, plan)
            self._live.apply(self._deployment(plan))
            self.plan = plan
            trim_heap()
        return found

    def _deployment(self, plan: Plan, later: Collection[str] = ()) -> Deployment:
        return deploy(
            plan.scenario.instance.with_share(self._share),
            plan.spec,
            plan.scenario.load_models(),
            policy=self._policy,
            live=True,
            later=later,
            home_timeout_s=self._home_timeout_s,
            replan=ReplanProcess,
        )

    @cached_property
    def _live(self) -> LiveSession:
        """The session proper; the models are loaded when it is needed first."""
        deployment = self._deployment(self.plan, self._later)
        if self._share is not None:
            check_room([deployment], self._share)
        agents = (
            remote_agents(
                self._workers,
                self._connect,
                cert_dir=self._cert_dir,
                insecure=self._insecure,
                share=self._share,
                take_over=self._take_over,
            )
            if self._connect
            else local_agents(self._workers)
        )
        return LiveSession(
            deployment,
            agents,
            limit=self._limit,
            share=self._share,
            observer=self._observer if self._rules is None else self._meter,
            ready_timeout_s=self._ready_timeout_s,
        )
