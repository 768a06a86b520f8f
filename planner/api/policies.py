"""Online policies by name, and how to register one of your own.

A policy decides at each worker, while samples arrive: which route a sample takes, and which of the waiting stages runs
next. A class derived from :class:`BasePolicy` (every sample where it arrives, first come, first served) or
:class:`PriorityPolicy` (the same, by priority) changes what it wants to change::

    class LastFirst(planner.policies.BasePolicy):
        def rank(self, task):  # the smallest rank runs first
            return -task.created_s

    planner.policies.register("last-first", lambda instance: LastFirst())
    planner.simulate("scenario.yaml", policy="last-first")

A policy that is registered in this process can be simulated here. Agents are other processes: for them, the policy
comes in an installed package (see :mod:`planner.policy.registry`). The constants of ``adaptive``, ``batch`` and of the
pace of workers are the scenario's keys ``policy.adaptive``, ``policy.batch`` and ``policy.pace``, documented by
:class:`AdaptiveParameters`, :class:`BatchParameters` and :class:`PaceParameters`.
"""

from __future__ import annotations

from planner.policy.base import BasePolicy, PriorityPolicy
from planner.policy.registry import Registration, register, registered, unregister
from planner.policy.types import Policy, Task, View
from planner.scenario.types import AdaptiveParameters, BatchParameters, PaceParameters

__all__ = [
    "AdaptiveParameters",
    "BasePolicy",
    "BatchParameters",
    "PaceParameters",
    "Policy",
    "PriorityPolicy",
    "Registration",
    "Task",
    "View",
    "names",
    "register",
    "registered",
    "unregister",
]


def names() -> tuple[str, ...]:
    """Return the names of all policies known to this process."""
    return tuple(registered())
