"""Loads and unloads an agent's blocks while a run goes on.

The blocks that a new plan needs here are loaded when it arrives, before samples need them. Those that it joins to
sessions run one by one until their session is there. Blocks that the plan does not need, loaded for an earlier plan or
for a sample that took another route, are unloaded once they have been idle for a while; they are loaded again if a
sample needs them.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from planner.errors import explain
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.warm_up import WarmUp
from planner.execution.wire.messages import Deploy
from planner.execution.wire.threads import start_thread
from planner.plan.types import PlanSpec
from planner.policy.candidate_routes import resident_blocks, resident_sessions

_LOG = logging.getLogger(__name__)

_UNLOAD_PERIOD_S: Final = 2.0
_IDLE_S: Final = 10.0
"""A block that the plan does not need and no sample has used for this long is unloaded."""


class BlockLoader:
    """Loads and unloads the blocks of one worker in a thread.

    Parameters
    ----------
    warm_up
        Loads a block, and runs it once if it knows tensors for it.
    on_problem
        Called in that thread with the reason why a block of a new plan could not be loaded; its samples will fail.
    on_failure
        Called in that thread with the exception that ended it.
    """

    def __init__(
        self,
        name: str,
        deploy: Deploy,
        models: Mapping[str, ModelBlocks],
        warm_up: WarmUp,
        *,
        on_problem: Callable[[str], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._name = name
        self._deploy = deploy
        self._models = models
        self._warm_up = warm_up
        self._on_problem = on_problem
        self._need(deploy.plan, deploy.resident)
        self._plans: queue.SimpleQueue[PlanSpec | None] = queue.SimpleQueue()
        self._thread = start_thread("block loader", self._work, on_failure, awaited_at_exit=True)

    def follow(self, plan: PlanSpec) -> None:
        """Load the blocks that a new plan needs here."""
        self._plans.put(plan)

    def close(self) -> None:
        """End the thread."""
        self._plans.put(None)

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _work(self) -> None:
        while (plan := self._next_plan()) is not None:
            try:
                self._load(plan)
            except Exception as error:  # noqa: BLE001 - the run goes on; samples that need the block fail
                _LOG.warning("%s: a block of the new plan cannot be loaded", self._name, exc_info=True)
                self._on_problem(f"a block of the new plan cannot be loaded: {explain(error)}")
        self._need(None, {})

    def _next_plan(self) -> PlanSpec | None:
        """Wait for a new plan, or None at the end; meanwhile unload idle blocks."""
        while True:
            try:
                return self._plans.get(timeout=_UNLOAD_PERIOD_S)
            except queue.Empty:
                pass
            self._unload()

    def _need(
        self, plan: PlanSpec | None, needed: Mapping[str, Sequence[int]]
    ) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Return the sessions that the run needs, by model; the models keep these from now on."""
        sessions = resident_sessions(self._deploy.instance, self._deploy.policy, plan, self._name, needed)
        for model, blocks in self._models.items():
            blocks.need(self._deploy.run, sessions.get(model, ()))
        return sessions

    def _load(self, plan: PlanSpec) -> None:
        needed = resident_blocks(self._deploy.instance, self._deploy.policy, plan).get(self._name, {})
        for model, sessions in self._need(plan, needed).items():
            for first, last in sessions:
                if (first, last) not in self._models[model].sessions:
                    self._warm_up.warm_up(model, first, last=last)

    def _unload(self) -> None:
        for blocks in self._models.values():
            for session in blocks.idle:
                blocks.unload(session, unused_s=_IDLE_S)
