"""A plan at work for a program: samples in, futures of their results out.

::

    with planner.Session("plan.json", connect=["192.0.2.7:7447"]) as session:
        camera = session.source("gate-camera")
        future = camera.submit({"input": image})
        outputs = future.result().outputs
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from planner.execution.coordinator.deployment import deploy
from planner.execution.coordinator.run_result import Observer
from planner.execution.launch.local import local_agents
from planner.execution.launch.remote import remote_agents, there_at_first
from planner.execution.session.session import LIMIT, LiveSession
from planner.project import load_models, load_project
from planner.solvers.replan.process import ReplanProcess


class Session(LiveSession):
    """Agents that run a plan and take samples, as a context manager.

    Leaving it waits for the samples on their way; after an exception it does not, and they fail. The plan is solved
    again when workers leave, come back or become slow.

    Parameters
    ----------
    plan
        Plan file, by ``planner solve``.
    scenario
        Scenario file, instead of the one the plan names.
    connect
        ``HOST:PORT`` of agents that run already. Without any, one agent process a worker is started on this machine.
    cert_dir, insecure
        The coordinator's folder by ``planner certs``; or that agents off the loopback interface will do without.
    limit
        How many samples of a source may be on their way at once.
    later
        Workers that need not be there at the start and join when they come; with ``connect`` only.
    observer
        Is told what goes on, beside the futures.

    Raises
    ------
    PlannerError
        The plan does not fit its scenario; or, on entering, an agent did not come, or could not make ready.
    """

    def __init__(
        self,
        plan: str | Path,
        *,
        scenario: str | Path | None = None,
        connect: Sequence[str] = (),
        cert_dir: str | Path | None = None,
        insecure: bool = False,
        policy: str = "planned",
        limit: int = LIMIT,
        later: Collection[str] = (),
        observer: Observer | None = None,
    ) -> None:
        case = load_project(Path(plan), Path(scenario) if scenario is not None else None)
        at_first = there_at_first(case.instance.workers, later, connect)
        models = load_models(case.scenario_path, case.instance)
        certificates = Path(cert_dir) if cert_dir is not None else None
        super().__init__(
            deploy(case.instance, case.plan, models, policy=policy, live=True, later=later, replan=ReplanProcess),
            remote_agents(at_first, connect, cert_dir=certificates, insecure=insecure)
            if connect
            else local_agents(at_first),
            limit=limit,
            observer=observer,
        )
