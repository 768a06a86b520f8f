"""What the runs of one agent share: loaded blocks, the right to compute, and what is known of links and sequences."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary

from planner.execution.agent.link_speeds import LinkSpeeds
from planner.execution.agent.model_blocks import ModelBlocks
from planner.execution.agent.turns import Turns
from planner.worker.stickiness import SequenceRoutes


class Workbench:
    """Shared by the runs of an agent, so that a block that two of them need is in memory once."""

    def __init__(self) -> None:
        self.turns = Turns()
        """An agent runs one block at a time, whichever run it is of."""
        self.links = LinkSpeeds()
        self.routes = SequenceRoutes()
        """Those of the sequences that begin here."""
        self._models: WeakValueDictionary[Hashable, ModelBlocks] = WeakValueDictionary()

    def blocks(self, key: Hashable, make: Callable[[], ModelBlocks]) -> ModelBlocks:
        """Return the blocks of a model that a run at hand has under a key, or new ones."""
        found = self._models.get(key)
        if found is None:
            found = self._models[key] = make()
        return found
