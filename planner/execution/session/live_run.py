"""One run of a session: a plan on its agents, until another plan has replaced it and its last sample has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from planner.errors import ExecuteError, PlannerError, explain
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import Deployment
from planner.execution.coordinator.run_result import Observer, SendSample
from planner.execution.session.source import Result, SampleError, SourceHandle
from planner.execution.wire.diagnostics import LinkSpeed
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Further, Load
from planner.execution.wire.threads import start_thread
from planner.model.chain import TensorSpec
from planner.plan.types import PlanSpec
from planner.policy.types import Progress
from planner.runtime.state import NUMBERS
from planner.scenario.decode import DecodeSpec
from planner.trace.records import Incident, SampleRecord


class LiveRun(Observer):
    """Sends submitted samples to a run, and completes their futures in the thread of its coordinator.

    Parameters
    ----------
    handles
        Those of the deployment's sources.
    observer
        Informed of what happens while the run takes new samples, and later of the ends of its samples.
    first
        Whether it is the first run of its session.
    on_over
        Called in the run's thread at its end.
    """

    def __init__(
        self,
        deployment: Deployment,
        handles: Mapping[str, SourceHandle],
        observer: Observer,
        *,
        ready_timeout_s: float,
        first: bool,
        on_over: Callable[[LiveRun], None],
    ) -> None:
        self.deployment = deployment
        self.handles = handles
        self.open = threading.Event()
        """Set once samples may be submitted, or the run has failed."""
        self.absent: set[str] = set()
        """Workers that are not in the run."""
        self.links: dict[tuple[str, str], LinkSpeed] = {}
        """Speed of the links between workers, as the senders last told."""
        self.error: Exception | None = None
        """What has ended the run, if that was an error."""
        self._observer = observer
        self._ready_timeout_s = ready_timeout_s
        self._first = first
        self._on_over = on_over
        self._submit: SendSample | None = None
        self._draining = False
        self._coordinator: Coordinator | None = None
        self._thread: threading.Thread | None = None

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self, coordinator: Coordinator) -> None:
        """Begin to prepare the run in a thread; :attr:`open` tells the end of that."""
        self._coordinator = coordinator
        self._thread = start_thread("session", partial(self._run, coordinator), self._end)

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator of this run, once it has been started."""
        if self._coordinator is None:
            raise _not_entered()
        return self._coordinator

    def stop(self) -> None:
        """End the run, and wait for the reports of its agents."""
        if self._coordinator is not None:
            self._coordinator.stop()

    def abandon(self) -> None:
        """End the run at once."""
        if self._coordinator is not None:
            self._coordinator.abandon()

    def _run(self, coordinator: Coordinator) -> None:
        try:
            coordinator.run(self.deployment, ready_timeout_s=self._ready_timeout_s, observer=self)
        except PlannerError as error:  # raised in the threads that submit samples: nothing to log
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        self.fail(error or ExecuteError("the run has ended", where="session"))
        self._on_over(self)

    def fail(self, error: Exception) -> None:
        """Take no more samples, and fail those in flight."""
        self.error = self.error or error
        self.open.set()
        for handle in self.handles.values():
            handle.fail_all(explain(error), self)
        if self._submit is not None and not self._draining:
            self._observer.on_closed(self.error)

    def drain(self) -> None:
        """Stop the run once its last sample has ended; no more are submitted to it."""
        self._draining = True
        self._stop_if_drained()

    def _stop_if_drained(self) -> None:
        if self._draining and not any(handle.in_flight(self) for handle in self.handles.values()):
            self.stop()

    def join(self) -> None:
        """Wait for the end of the run."""
        if self._thread is not None:
            self._thread.join()

    # ---- what its sources need of it -------------------------------------------------------------------------------

    def inputs(self, source: str) -> Sequence[TensorSpec]:
        """Return the inputs of a source's model."""
        return self._cuts(source)[0]

    def outputs(self, source: str) -> Sequence[TensorSpec]:
        """Return the outputs of a source's model."""
        return self._cuts(source)[-1]

    def _cuts(self, source: str) -> Sequence[Sequence[TensorSpec]]:
        return self.deployment.models[self.deployment.instance.scenario.sources[source].models[0]].cuts

    def decode(self, source: str) -> DecodeSpec | None:
        """Return how a source generates, by its scenario."""
        return self.deployment.instance.scenario.sources[source].decode

    def next_sequence(self, source: str) -> int:
        """Return the number of a new sequence; raise an error if its runs might leave at an exit."""
        instance = self.deployment.instance
        leaving = [name for name in instance.scenario.sources[source].models if instance.any_profile(name).exits]
        if leaving:
            raise ExecuteError(
                "a run that leaves at an exit leaves the blocks behind it without its state",
                where=source,
                value=f"model {leaving[0]} with exits",
                expected="a model without exits",
            )
        return next(NUMBERS)

    def home(self, source: str) -> str:
        """Return the worker of a source."""
        return self.deployment.instance.home(source)

    def warm_up(self, source: str, inputs: Tensors) -> None:
        """Let the agents warm up with a sample."""
        self.deployment.warm_up.first[source] = inputs

    def check_priority(self, source: str, priority: float) -> None:
        """Check that some source has a priority."""
        known = {spec.priority for spec in self.deployment.instance.scenario.sources.values()}
        if priority not in known:
            expected = f"one of {', '.join(f'{own:g}' for own in sorted(known))}"
            raise ExecuteError("no source has this priority", where=source, value=priority, expected=expected)

    def send(
        self,
        source: str,
        sample: int,
        inputs: Tensors,
        *,
        priority: float | None = None,
        within_s: float | None = None,
        further: Further | None = None,
        progress: Progress | None = None,
        given_up: Sequence[int] = (),
    ) -> None:
        """Send a sample to the worker of its source."""
        if self._submit is None:
            raise _not_entered()
        self._submit(
            source,
            sample,
            inputs,
            priority=priority,
            within_s=within_s,
            further=further,
            progress=progress,
            given_up=given_up,
        )

    def refuse_failed(self) -> None:
        """Raise the error that has ended the run, if any, as a new exception for each caller."""
        if isinstance(self.error, PlannerError):
            raise type(self.error)(self.error.faults) from self.error
        if self.error is not None:
            raise ExecuteError(f"the session failed: {explain(self.error)}", where="session") from self.error

    def _at(self, worker: str) -> list[SourceHandle]:
        """Return the sources of a worker."""
        return [handle for name, handle in self.handles.items() if self.home(name) == worker]

    # ---- what happens to it ----------------------------------------------------------------------------------------

    def on_started(self, submit: SendSample) -> None:
        """Take samples from now on."""
        self._submit = submit
        self.open.set()
        if self._first:
            self._observer.on_started(submit)

    def on_ended(self, sample: SampleRecord, outputs: Tensors) -> None:
        """Complete the future of a sample."""
        source, number = sample.source, sample.sample
        handle = self.handles[source]
        sample = replace(sample, created_s=sample.created_s - handle.waited_s(number))
        if sample.status == "completed":
            first = handle.end(number, Result(source, number, outputs, sample.delay_s))
        else:
            dropped = sample.status == "dropped"
            first = handle.end(number, SampleError(source, number, sample.reason, dropped=dropped))
        if first:  # it may have ended twice if it was sent again
            self._observer.on_ended(sample, outputs)
        self._stop_if_drained()

    def on_tokens(self, source: str, sample: int, tokens: Tensors) -> None:
        """Give tokens to the program that waits for them."""
        self.handles[source].take_tokens(sample, tokens)

    def on_load(self, load: Load) -> None:
        """Look for samples that will not end."""
        for source in self._at(load.worker):
            source.fail_stalled()
        self.links |= {(load.worker, to): speed for to, speed in load.links.items()}
        if not self._draining:
            self._observer.on_load(load)

    def on_left(self, worker: str) -> None:
        """Keep the samples of a worker until it is back."""
        self.absent.add(worker)
        for source in self._at(worker):
            source.home_left(self)
        if not self._draining:
            self._observer.on_left(worker)

    def on_joined(self, worker: str) -> None:
        """Send a worker its samples."""
        self.absent.discard(worker)
        for source in self._at(worker):
            source.home_joined(self)
        if not self._draining:
            self._observer.on_joined(worker)

    def on_given_up(self, worker: str) -> None:
        """Fail the samples of a worker that is not awaited any longer."""
        for source in self._at(worker):
            what = f"{worker} left, and did not come back within {self.deployment.home_timeout_s:g} s"
            source.give_up(self, what)
        if not self._draining:
            self._observer.on_given_up(worker)
        self._stop_if_drained()

    def on_incident(self, incident: Incident) -> None:
        """Pass it on."""
        self._observer.on_incident(incident)

    def on_replanned(self, plan: PlanSpec) -> None:
        """Pass it on."""
        if not self._draining:
            self._observer.on_replanned(plan)


def _not_entered() -> ExecuteError:
    return ExecuteError("the session is not open", where="session", expected="`with` around its use")
