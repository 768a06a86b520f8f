"""Run a plan on real agents, and compare the measurement with the prediction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from planner.api.picture import Picture, drawn
from planner.api.plan import Plan, plan_of
from planner.api.progress import Progress, show_progress
from planner.api.scenario import Scenario
from planner.errors import UsageError
from planner.execution.coordinator.coordinator import READY_TIMEOUT_S
from planner.execution.coordinator.deployment import HOME_TIMEOUT_S, deploy
from planner.execution.coordinator.room import check_room
from planner.execution.coordinator.run_result import Observer
from planner.execution.launch.remote import check_share, remote_agents, there_at_first
from planner.execution.launch.setting import Setting, in_namespaces, on_this_host, shortened
from planner.files import StrPath, several
from planner.project import reference_to
from planner.scenario.instance import Instance
from planner.solvers.replan.process import ReplanProcess
from planner.tables import Printable, Table
from planner.validation.document import validation_document
from planner.validation.run_folder import write_run_folder
from planner.validation.samples import read_prompts, read_samples
from planner.validation.summary import describe_calibration, describe_times, describe_validation
from planner.validation.validate import Progress as StepProgress
from planner.validation.validate import Say, say_nothing
from planner.validation.validate import validate as validate_deployment
from planner.validation.verdict import Validation

Place = Literal["local", "netns", "remote"]


class Verdict(Printable):
    """A run of a plan on real agents, compared with its prediction.

    Parameters
    ----------
    plan
        The plan that was run.
    instance
        The scenario as it was run.
    validation
        Prediction, measurement, and the outputs compared with those of the whole models.
    tolerance
        Maximum relative difference of the mean delays from their prediction.
    """

    def __init__(self, plan: Plan, instance: Instance, validation: Validation, tolerance: float) -> None:
        self.plan = plan
        self.instance = instance
        self.validation = validation
        self.tolerance = tolerance

    @property
    def passed(self) -> bool:
        """Whether the run is sound, no source is less accurate than predicted, and the delays are as predicted."""
        return self.validation.passed(self.tolerance)

    @property
    def sound(self) -> bool:
        """Whether every sample completed and every output agrees with the whole model's."""
        return self.validation.sound

    def contents(self) -> Iterator[Table | str]:
        """Return where the time went, the delays side by side, and the verdict."""
        yield from describe_times(self.validation)
        yield from describe_calibration(self.validation)
        yield from describe_validation(self.validation, self.tolerance)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON data."""
        return validation_document(self.validation, self.tolerance)

    def plot(self, path: StrPath | None = None) -> Picture:
        """Return a picture of the delays, predicted and measured; write it to ``path`` if given."""
        from planner.report.delays import draw_delays

        predicted, measured = self.validation.predicted, self.validation.measurement.records

        def draw(file: Path) -> None:
            draw_delays(measured, file, predicted=predicted, sources=self.instance.sources)

        return drawn(draw, path)

    def save(self, folder: StrPath) -> dict[str, Path]:
        """Write a folder with traces, logs, the verdict and pictures; return the pictures by what they show."""
        spec, path = self.plan.spec, self.plan.scenario.path
        if path is not None:
            _, sha256 = self.plan.scenario.file()
            reference = reference_to(path, Path(folder) / "plan.json", sha256=sha256)
            spec = spec.model_copy(update={"scenario": reference})
        return write_run_folder(Path(folder), self.instance, spec, self.validation, self.tolerance)

    def __repr__(self) -> str:
        return f"<Verdict: {'passed' if self.passed else 'not passed'} (mean delays within {self.tolerance * 100:g} %)>"


def validate(
    plan: Plan | StrPath,
    *,
    place: Place = "local",
    scenario: Scenario | StrPath | None = None,
    paced: bool = True,
    connect: str | Sequence[str] = (),
    cert_dir: StrPath | None = None,
    insecure: bool = False,
    samples: Mapping[str, StrPath] | None = None,
    max_samples: int | None = None,
    duration_s: float | None = None,
    policy: str = "planned",
    seed: int = 0,
    tolerance: float = 0.15,
    calibrate_s: float = 0.0,
    later: str | Collection[str] = (),
    share: float | None = None,
    take_over: bool = False,
    home_timeout_s: float = HOME_TIMEOUT_S,
    ready_timeout_s: float = READY_TIMEOUT_S,
    progress: Progress | None = show_progress,
    observer: Observer | None = None,
) -> Verdict:
    """Run a plan on real agents, and compare outputs with the whole models and delays with the prediction.

    Parameters
    ----------
    plan
        The plan, or its file.
    place
        ``local``: agents on this machine; ``netns``: the same, joined by real links with the scenario's bandwidths, in
        network namespaces; ``remote``: running agents, see ``connect``.
    scenario
        Scenario, or its file, to use in place of the plan's.
    paced
        On this machine: whether blocks and transfers take the scenario's times, or as long as they need here.
    connect
        For ``remote``: ``HOST:PORT`` of one or more running agents, through which the others are found.
    cert_dir, insecure, later, share, take_over, ready_timeout_s
        As for :class:`planner.Session`.
    samples
        By source, an ``.npz`` file of its own samples: inputs by name; with ``label``, its accuracy is measured. For a
        source of sequences, a JSON file of prompts: a list of lists of tokens.
    max_samples
        Maximum number of samples of each source.
    duration_s
        Run the samples that arrive within this time, in seconds.
    policy
        Name of the policy.
    seed
        Seed of arrivals and inputs.
    tolerance
        Maximum relative difference of the mean delays from their prediction.
    calibrate_s
        Before and after the run, run samples for about so long, in seconds, and predict from the costs measured then
        in place of profiles and bandwidths; not for paced agents on this machine. 0 for none.
    home_timeout_s
        Time in seconds for which a source waits for its own worker, if that is away. Samples that arrive meanwhile fail
        in any case, as do those that the worker had.
    progress
        Callback ``progress(step, done, total)``. By default, a bar on a terminal; None for none.
    observer
        Receives what happens during the run.

    Raises
    ------
    PlannerError
        If the run could not be made.
    """
    if place not in get_args(Place):
        raise UsageError("unknown place", where="place", value=place, expected=" | ".join(get_args(Place)))
    connect, later = several(connect), several(later)
    if (place == "remote") != bool(connect):
        expected = "addresses of agents with place='remote', none otherwise"
        raise UsageError(f"place is {place!r}", where="connect", value=connect or None, expected=expected)
    if calibrate_s and place != "remote" and paced:
        raise UsageError(
            "paced workers take the times of the scenario, so there is nothing to calibrate",
            where="--calibrate",
            value=calibrate_s,
            expected="with --unpaced or --connect (in Python: paced=False or place='remote')",
        )
    check_share(share, connect)
    loaded = plan_of(plan, scenario)
    models = loaded.scenario.load_models()
    own_samples = read_samples(
        samples or {}, loaded.scenario.instance, {name: model.chain for name, model in models.items()}
    )
    own_prompts = read_prompts(samples or {}, loaded.scenario.instance)
    at_first = there_at_first(loaded.scenario.workers, later, connect)
    instance = shortened(loaded.scenario.instance, seed=seed, max_samples=max_samples, duration_s=duration_s)
    if place == "remote":
        certificates = None if cert_dir is None else Path(cert_dir)
        agents = remote_agents(
            at_first, connect, cert_dir=certificates, insecure=insecure, share=share, take_over=take_over
        )
        setting = Setting(instance, agents)
    else:
        setting = (in_namespaces if place == "netns" else on_this_host)(instance, paced=paced)
    deployment = deploy(
        setting.instance.with_share(share),
        loaded.spec,
        models,
        policy=policy,
        seed=seed,
        paced=setting.paced,
        emulation=setting.emulation,
        sent={name: [data.sample(index) for index in range(len(data))] for name, data in own_samples.items()},
        own_prompts=own_prompts,
        later=later,
        home_timeout_s=home_timeout_s,
        replan=ReplanProcess,
    )
    if share is not None:
        check_room([deployment], share)
    with _steps(progress) as say:
        validation = validate_deployment(
            deployment,
            models,
            setting.agents,
            labels={name: data.labels for name, data in own_samples.items() if data.labels is not None},
            calibrate_s=calibrate_s,
            say=say,
            observer=observer,
            ready_timeout_s=ready_timeout_s,
        )
    return Verdict(loaded, setting.instance, validation, tolerance)


@contextmanager
def _steps(progress: Progress | None) -> Iterator[Say]:
    """Return a function that reports the steps of the work to a callback; the last one is reported as done."""
    if progress is None:
        yield say_nothing
        return
    current = "validating"

    def say(step: str) -> StepProgress:
        nonlocal current
        current = step
        progress(step, 0, None)
        return lambda done, total: progress(step, done, total)

    try:
        yield say
    finally:
        progress(current, 1, 1)
