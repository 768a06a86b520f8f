"""Whether workers have memory for the runs that a coordinator has on them at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from planner.errors import ExecuteError, Fault
from planner.execution.coordinator.deployment import Deployment
from planner.plan.sessions import block_by_block, has_sessions
from planner.policy.registry import needs_plan
from planner.units import format_quantity


def needed_bytes(deployments: Sequence[Deployment], worker: str) -> float:
    """Return the memory that a worker needs for several runs at once.

    As for one plan, it is the worker's base, the weights of each session once, and the largest activation: a block, or
    a session of several, that two runs have is in memory once.
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


def _costs(deployment: Deployment, worker: str) -> Iterator[tuple[tuple[str, ...], tuple[float, float]]]:
    """Yield hashes, size of the weights and of the activations of each session that a run has at a worker."""
    for model, spans in deployment.sessions(worker).items():
        profile = deployment.instance.profile(model, worker)
        for first, last in spans:
            costs, hashes = profile.blocks[first : last + 1], deployment.models[model].block_sha256[first : last + 1]
            weights = sum(cost.weight_bytes for cost in costs)
            yield hashes, (weights, max(cost.activation_bytes for cost in costs))


def with_room(others: Sequence[Deployment], new: Deployment, share: float | None = None) -> Deployment:
    """Return a run to begin beside others, in which each block has its own session where only that fits in memory.

    Raises
    ------
    ExecuteError
        As :func:`check_room`.
    """
    try:
        check_room([*others, new], share)
    except ExecuteError:
        if new.plan is None or not has_sessions(new.plan):
            raise
        apart = replace(new, plan=block_by_block(new.plan))
        check_room([*others, apart], share)
        return apart
    return new


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
