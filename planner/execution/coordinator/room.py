"""Whether workers have memory for the runs that a coordinator has on them at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.errors import ExecuteError, Fault
from planner.execution.coordinator.deployment import Deployment
from planner.policy.registry import needs_plan
from planner.units import format_quantity


def needed_bytes(deployments: Sequence[Deployment], worker: str) -> float:
    """Return the memory that a worker needs for several runs at once.

    As for one plan, it is the worker's base, the weights of each block once, and the largest activation: a block that
    two runs have is in memory once.
    """
    costs = dict(cost for deployment in deployments for cost in _costs(deployment, worker))
    base_bytes = max(
        deployment.instance.worker(worker).base_memory_bytes
        for deployment in deployments
        if worker in deployment.instance.workers
    )
    return (
        base_bytes + sum(weights for weights, _ in costs.values()) + max((act for _, act in costs.values()), default=0)
    )


def _costs(deployment: Deployment, worker: str) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield hash, size of the weights and size of the activations of each block that a run has at a worker."""
    for model, blocks in deployment.resident.get(worker, {}).items():
        profile = deployment.instance.profile(model, worker)
        for block in blocks:
            cost = profile.blocks[block]
            yield deployment.models[model].block_sha256[block], (cost.weight_bytes, cost.activation_bytes)


def check_room(deployments: Sequence[Deployment], share: float | None = None) -> None:
    """Check that the workers of the last of some runs have memory for all of them at once.

    Policies that run any block anywhere bound no memory, and are not checked.

    Parameters
    ----------
    deployments
        The runs that go on, and last the one to begin, whose workers' memory counts.
    share
        The share of the agents that the coordinator holds, to which that memory has been reduced; None for all.

    Raises
    ------
    ExecuteError
        Names the workers that have not.
    """
    new = deployments[-1]
    if not needs_plan(new.policy):
        return
    if len(deployments) > 1:
        what = "not enough memory for the blocks of both plans while one replaces the other"
        expected = ", or end the service and start it with the new plan"
    else:
        what, expected = "the plan needs more memory than there is", ", or another plan"
    if share is not None:
        what += f", in a share of {share * 100:g} %"
    faults = []
    for worker in new.instance.workers:
        needed, most = needed_bytes(deployments, worker), new.instance.worker(worker).memory_bytes
        if needed > most:
            sizes = [format_quantity(size, "memory", digits=4) for size in (needed, most)]
            faults.append(Fault(what, f"workers.{worker}", sizes[0], f"at most {sizes[1]}{expected}"))
    if faults:
        raise ExecuteError(faults)
