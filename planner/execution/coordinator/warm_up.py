"""Inputs of the agents' warm-up: tensors that the blocks before really produce.

A drawn tensor would not do at an inner cut: it may be a shape, or the index of a row. The coordinator therefore runs
the blocks up to the last cut at which an agent needs tensors, one block in memory at a time, on the first sample of a
source of the model, or on a drawn input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from planner.errors import PlannerError, RuntimeSessionError, explain
from planner.execution.wire.frames import Tensors
from planner.model.chain import TensorSpec
from planner.runtime.runner import ChainRunner
from planner.runtime.session import tensor_fault

if TYPE_CHECKING:
    from planner.execution.coordinator.deployment import Deployment

_LOG = logging.getLogger(__name__)


class WarmUp:
    """Tensors of the cuts at which agents begin to warm up; computed once, for all runs of a deployment."""

    def __init__(self) -> None:
        self.first: dict[str, Tensors] = {}
        """First sample of each source that is known before the run and not sent with it."""
        self.problems: list[str] = []
        """Why blocks cannot be warmed up."""
        self.stopped: Callable[[], bool] = lambda: False
        """Asked between blocks; the computation ends early, without an error, if it answers True."""
        self._tensors: dict[str, dict[int, Tensors]] | None = None

    def of_worker(self, deployment: Deployment, worker: str) -> dict[tuple[str, int], Tensors]:
        """Return the tensors that a worker needs, by model and cut; fewer if a block fails."""
        known = self.compute(deployment)
        needed = [(model, cut) for model, blocks in _resident(deployment, worker) for cut in first_blocks(blocks)]
        return {(model, cut): known[model][cut] for model, cut in needed if cut in known[model]}

    def compute(self, deployment: Deployment) -> Mapping[str, Mapping[int, Tensors]]:
        """Compute the tensors of all workers, by model and cut, unless that is done."""
        if self._tensors is None:
            cuts: dict[str, set[int]] = {}
            for worker in deployment.resident:
                for model, blocks in _resident(deployment, worker):
                    cuts.setdefault(model, set()).update(first_blocks(blocks))
            self._tensors = {model: self._of_model(deployment, model, wanted) for model, wanted in cuts.items()}
        return self._tensors

    def _of_model(self, deployment: Deployment, name: str, cuts: set[int]) -> dict[int, Tensors]:
        model, found = deployment.models[name], dict[int, Tensors]()
        runner = ChainRunner([[spec.name for spec in cut] for cut in model.cuts], name=name)
        try:
            tensors = self._input(deployment, name)
            for cut in range(max(cuts, default=-1) + 1):
                if self.stopped():
                    break
                if cut > 0:
                    runner.load(cut - 1, deployment.blocks[model.block_sha256[cut - 1]])
                    tensors = runner.run_block(cut - 1, tensors)
                    runner.unload(cut - 1)
                if cut in cuts:
                    found[cut] = _fitting(model.cuts[cut], tensors)
        except PlannerError as error:
            problem = f"some blocks of {name} cannot be warmed up: {explain(error)}"
            _LOG.warning("%s", problem)
            self.problems.append(problem)
        return found

    def _input(self, deployment: Deployment, model: str) -> Tensors:
        sources = deployment.instance.scenario.sources
        users = [source for source in deployment.instance.sources if model in sources[source].models]
        known = [source for source in users if source in self.first]
        return self.first[known[0]] if known else deployment.first_input(users[0])


def _resident(deployment: Deployment, worker: str) -> Iterable[tuple[str, Sequence[int]]]:
    return deployment.resident.get(worker, {}).items()


def _fitting(specs: Sequence[TensorSpec], tensors: Tensors) -> Tensors:
    """Return the tensors of a cut; an agent would refuse others than it expects."""
    if faults := [fault for spec in specs if (fault := tensor_fault(spec, tensors.get(spec.name)))]:
        raise RuntimeSessionError(faults)
    return {spec.name: tensors[spec.name] for spec in specs}


def first_blocks(blocks: Iterable[int]) -> list[int]:
    """Return the blocks before which tensors are needed, to run these blocks on each other's outputs."""
    return sorted(block for block in set(blocks) if block - 1 not in set(blocks))
