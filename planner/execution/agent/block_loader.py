"""Which blocks an agent has in memory while a run goes on.

Those that the plan at hand needs here are loaded when it comes, before samples ask for them. Others, of an earlier plan
or of a sample that had to go another way, go when nothing has asked for them for a while; should one be asked for
again, it is loaded again.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from planner.errors import explain
from planner.execution.agent.executor import ModelBlocks
from planner.execution.wire.messages import Deploy
from planner.execution.wire.threads import start_thread
from planner.plan.types import PlanSpec
from planner.policy.candidate_routes import resident_blocks
from planner.runtime.input_pool import input_pool

_LOG = logging.getLogger(__name__)

_LOOK_S: Final = 2.0
_IDLE_S: Final = 10.0
"""A block that no sample has asked for so long, and no plan needs, goes."""


class BlockLoader:
    """Loads and drops the blocks of one worker in a thread of its own.

    Parameters
    ----------
    on_trouble
        Told, in that thread, why a block could not be loaded ahead of its samples, which then fail by name.
    on_failure
        Told, in that thread, what has ended it.
    """

    def __init__(
        self,
        name: str,
        deploy: Deploy,
        models: Mapping[str, ModelBlocks],
        on_trouble: Callable[[str], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._name = name
        self._deploy = deploy
        self._models = models
        self._on_trouble = on_trouble
        self._needed: Mapping[str, Sequence[int]] = deploy.resident
        self._plans: queue.SimpleQueue[PlanSpec | None] = queue.SimpleQueue()
        self._thread = start_thread("residency", self._work, on_failure)

    def follow(self, plan: PlanSpec) -> None:
        """Load what another plan needs."""
        self._plans.put(plan)

    def close(self) -> None:
        """Let the thread end."""
        self._plans.put(None)

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _work(self) -> None:
        while (plan := self._next_plan()) is not None:
            try:
                self._load(plan)
            except Exception as error:  # noqa: BLE001 - the run goes on; samples that need the block fail by name
                _LOG.warning("%s: a block of the new plan cannot be loaded", self._name, exc_info=True)
                self._on_trouble(f"a block of the new plan cannot be loaded: {explain(error)}")

    def _next_plan(self) -> PlanSpec | None:
        """Wait for another plan, or the end; drop meanwhile what nothing needs."""
        while True:
            try:
                return self._plans.get(timeout=_LOOK_S)
            except queue.Empty:
                pass
            self._unload()

    def _load(self, plan: PlanSpec) -> None:
        self._needed = resident_blocks(self._deploy.instance, self._deploy.policy, plan).get(self._name, {})
        for model, blocks in self._needed.items():
            for block in blocks:
                _warm(self._deploy, self._models, model, block)

    def _unload(self) -> None:
        for model, blocks in self._models.items():
            for block in set(blocks.loaded).difference(self._needed.get(model, ())):
                blocks.unload(block, unused_s=_IDLE_S)


def _warm(deploy: Deploy, models: Mapping[str, ModelBlocks], model: str, block: int) -> None:
    """Load a block and run it once, unless it is in memory: the first run takes longer than others."""
    if block not in models[model].loaded:
        models[model].load(block)
        models[model].run(block, input_pool(deploy.models[model].cuts[block], seed=0, source_index=0, samples=1)[0])
