"""Plans: made by :func:`planner.solve`, or read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.api.picture import Picture, drawn
from planner.api.scenario import Scenario, load_scenario, scenario_of
from planner.errors import PlanError
from planner.files import StrPath, write_text_atomic
from planner.plan.store import load_plan as load_spec
from planner.plan.store import plan_document, save_plan
from planner.plan.summary import describe_plan
from planner.plan.types import NetworkUse, PlanPrices, PlanSpec, SourcePlan, Status, WorkerUse
from planner.project import check_fit, reference_to, referenced_scenario
from planner.tables import Printable, Table

if TYPE_CHECKING:
    from planner.interchange.formats import Exported


class Plan(Printable):
    """A plan with its scenario, or the reasons why there is none; it is true if there is a plan.

    Made by :func:`planner.solve` and :func:`planner.load_plan`.

    Parameters
    ----------
    scenario
        The scenario for which it was made.
    spec
        Contents of the plan's file; None if there is no plan.
    status, reasons
        Why there is no plan.
    path
        File of the plan.
    """

    def __init__(
        self,
        scenario: Scenario,
        spec: PlanSpec | None,
        *,
        status: Status | None = None,
        reasons: Sequence[str] = (),
        path: Path | None = None,
    ) -> None:
        self.scenario = scenario
        self.status: Status = spec.status if spec is not None else status or "no_solution"
        """``optimal``, ``feasible`` or ``interrupted``; without a plan also ``infeasible`` or ``no_solution``."""
        self.reasons = tuple(reasons)
        """Why there is no plan: limits that would have to give way together."""
        self.path = path
        """File of the plan; None before it was saved."""
        self._spec = spec

    def __bool__(self) -> bool:
        return self._spec is not None

    @property
    def spec(self) -> PlanSpec:
        """Contents of the plan's file.

        Raises
        ------
        PlanError
            If there is no plan; with the reasons.
        """
        if self._spec is None:
            raise PlanError(f"there is no plan ({self.status})", where="plan", value="; ".join(self.reasons) or None)
        return self._spec

    @property
    def sources(self) -> dict[str, SourcePlan]:
        """Routes of each source, with the expected delay in seconds and the accuracy."""
        return self.spec.sources

    @property
    def workers(self) -> dict[str, WorkerUse]:
        """Utilisation and memory of each worker."""
        return self.spec.workers

    @property
    def networks(self) -> dict[str, NetworkUse]:
        """Utilisation of each network resource."""
        return self.spec.networks

    @property
    def objective(self) -> float:
        """Value of the surrogate objective."""
        return self.spec.objective

    @property
    def bound(self) -> float:
        """Proven lower bound of the objective."""
        return self.spec.bound

    @property
    def gap(self) -> float:
        """Relative gap between objective and bound."""
        return self.spec.gap

    @property
    def prices(self) -> PlanPrices | None:
        """Value of more resources; None unless asked for."""
        return self.spec.prices

    def contents(self) -> Iterable[Table | str]:
        """Return routes, utilisations and the objective with its gap; or why there is no plan."""
        if self._spec is not None:
            return describe_plan(self._spec, self.scenario.instance)
        lines = [f"no plan: {self.status}"]
        if len(self.reasons) > 1:
            lines.append("there would be a plan if all of these limits gave way together:")
        return [*lines, *self.reasons]

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of the plan's file; without a plan, ``status`` and ``blame``."""
        if self._spec is None:
            return {"status": self.status, "blame": list(self.reasons)}
        return plan_document(self._spec)

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of the routes over time and of all loads; write it to ``path`` if given."""
        from planner.report.plan import draw_plan

        spec = self.spec
        return drawn(lambda file: draw_plan(self.scenario.instance, spec, file), path)

    def save(self, path: StrPath) -> Path:
        """Write the plan to a JSON file that refers to the scenario's file, and return the path.

        Raises
        ------
        PlanError
            If there is no plan, or the scenario has no file: then ``plan.scenario.save(...)`` first.
        """
        spec = self.spec
        scenario_path, sha256 = self.scenario.file()
        named = spec.model_copy(update={"scenario": reference_to(scenario_path, path, sha256=sha256)})
        save_plan(named, path)
        self._spec, self.path = named, Path(path)
        return self.path

    def annotate(self, path: StrPath, *, model: str | None = None) -> Path:
        """Write a model with the plan as ONNX's multi-device annotations, and return the path.

        Each route becomes a configuration of the model: its workers are devices, its stages pipeline stages.

        Parameters
        ----------
        path
            ONNX file to write.
        model
            Name of the model; needed if the plan uses several.

        Raises
        ------
        PlanError
            If there is no plan, it does not use the model, or the model has no ONNX file.
        ModelError
            If the model is too large for one file.
        """
        from planner.model.annotate import PlacedStage, Placement, write_annotated

        used = sorted({route.model for source in self.sources.values() for route in source.routes})
        name = used[0] if model is None and len(used) == 1 else model
        if name not in used:
            raise PlanError("which model to annotate", where="model", value=model, expected=f"one of {', '.join(used)}")
        placements = [
            Placement(
                source if len(plan.routes) == 1 else f"{source}, route {number}",
                [PlacedStage(stage.worker, stage.first_block, stage.last_block) for stage in route.stages],
            )
            for source, plan in self.sources.items()
            for number, route in enumerate(plan.routes)
            if route.model == name
        ]
        write_annotated(self.scenario.load_models()[name], placements, Path(path))
        return Path(path)

    def export(self, format: str, path: StrPath | None = None) -> Exported:  # noqa: A002
        """Return the plan as another project's schedule, with what that cannot hold; write it to ``path`` if given.

        Parameters
        ----------
        format
            ``pipeedge`` or ``saga``.

        Raises
        ------
        PlanError
            If there is no plan.
        UsageError
            If there is no such format.
        InterchangeError
            If the format cannot hold the plan.
        """
        from planner.interchange.formats import write_plan

        exported = write_plan(format, self.spec, self.scenario.instance)
        if path is not None:
            write_text_atomic(Path(path), exported.text)
        return exported

    def __repr__(self) -> str:
        return f"<Plan: {self._spec.summary}>" if self._spec is not None else f"<no Plan: {self.status}>"


def load_plan(path: StrPath, scenario: Scenario | StrPath | None = None) -> Plan:
    """Read a plan file and its scenario.

    Parameters
    ----------
    scenario
        Scenario, or its file, to use in place of the one to which the plan refers.

    Raises
    ------
    PlanError
        If the plan cannot be read or refers to no scenario, or the scenario has changed since or does not fit it.
    ScenarioError, ProfileError
        If the scenario is invalid.
    """
    spec = load_spec(path)
    if scenario is None:
        scenario = load_scenario(referenced_scenario(spec, Path(path)))
    loaded = scenario_of(scenario)
    check_fit(spec, loaded.instance, str(path))
    return Plan(loaded, spec, path=Path(path))


def plan_of(plan: Plan | StrPath, scenario: Scenario | StrPath | None = None) -> Plan:
    """Return a plan that is given as such or as a file; with another scenario, it must fit that one.

    Raises
    ------
    PlanError
        If there is no plan, or it does not fit the scenario.
    """
    if not isinstance(plan, Plan):
        return load_plan(plan, scenario)
    spec = plan.spec
    if scenario is None or scenario is plan.scenario:
        return plan
    other = scenario_of(scenario)
    check_fit(spec, other.instance, str(plan.path or "plan"))
    return Plan(other, spec, path=plan.path)


def start_of(start: Plan | StrPath | None) -> PlanSpec | None:
    """Return the routes with which a solver starts."""
    if start is None:
        return None
    return start.spec if isinstance(start, Plan) else load_spec(start)
