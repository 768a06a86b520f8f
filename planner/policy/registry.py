"""Policies by name: the built-in ones, those that a program registers, and those that an installed package brings.

:func:`register` makes a user's own policy known to this process, which is enough to simulate it. Agents are processes
of their own, mostly on other devices, and run nothing but what is installed there. So a policy for agents comes in an
installed package, whose entry point in the group ``planner.policies`` has the policy's name and names the module that
registers it::

    [project.entry-points."planner.policies"]
    my-policy = "my_package.my_policy"

That module is imported when the policy is first asked for, by agents and by everything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Final

from planner.errors import UsageError
from planner.plan.types import PlanSpec
from planner.policy.adaptive import Adaptive
from planner.policy.ar_mdi import ArMdi, Mdi
from planner.policy.batch import Batch
from planner.policy.ddi import Ddi
from planner.policy.deadlines import Edf, LeastLaxity
from planner.policy.ms_mdi import MsMdi
from planner.policy.pa_mdi import PaMdi
from planner.policy.routed import Local, Planned
from planner.policy.types import Policy
from planner.scenario.instance import Instance

ENTRY_POINTS: Final = "planner.policies"
"""Group of the entry points of installed packages."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RESERVED: Final = frozenset(("all",))
"""What ``planner simulate --policy`` takes for something else."""
_MEMBERS: Final = sorted({*Policy.__annotations__, *(name for name in vars(Policy) if not name.startswith("_"))})
"""What every policy has."""


@dataclass(frozen=True)
class Registration:
    """A policy that can be asked for by name.

    Parameters
    ----------
    factory
        Makes the policy of one worker: ``factory(instance, plan)`` if it needs a plan, else ``factory(instance)``.
    needs_plan
        Whether it follows a plan.
    description
        One line for people.
    """

    name: str
    factory: Callable[..., Policy]
    needs_plan: bool
    description: str


def _ms_mdi(instance: Instance) -> Policy:
    spec = instance.scenario.policy
    return MsMdi(reservoir_limit=spec.reservoir_limit, literal=spec.literal)


def _pa_mdi(instance: Instance) -> Policy:
    parts = instance.scenario.policy.pa_mdi
    return PaMdi(priorities=parts.priorities, clearance=parts.clearance, blocks=parts.blocks)


def _adaptive(instance: Instance, plan: PlanSpec) -> Policy:
    return Batch(instance, plan) if plan.goal == "makespan" else Adaptive(instance, plan)


_BUILT_IN: Final = (
    Registration(
        "local", lambda _: Local(), needs_plan=False, description="Every sample is computed where it arrives."
    ),
    Registration(
        "ddi", lambda _: Ddi(), needs_plan=False, description="The whole model at the worker that is done first."
    ),
    Registration("mdi", lambda _: Mdi(), needs_plan=False, description="Equal segments round a ring."),
    Registration(
        "ar-mdi", lambda _: ArMdi(), needs_plan=False, description="Segments round a ring by measured speed: AR-MDI."
    ),
    Registration(
        "ms-mdi", _ms_mdi, needs_plan=False, description="At home or round the ring, by queue lengths: MS-MDI."
    ),
    Registration("pa-mdi", _pa_mdi, needs_plan=False, description="Block by block to a neighbour that agrees: PA-MDI."),
    Registration("edf", Edf, needs_plan=False, description="As ddi, and there the earliest deadline first."),
    Registration(
        "least-laxity", LeastLaxity, needs_plan=False, description="As ddi, and there the least time to spare first."
    ),
    Registration("planned", Planned, needs_plan=True, description="The plan's routes by their shares."),
    Registration(
        "adaptive",
        _adaptive,
        needs_plan=True,
        description="The route near the plan's with the least marginal cost now.",
    ),
)

POLICIES: Final = tuple(entry.name for entry in _BUILT_IN)
"""Names of the built-in policies."""

_registered: dict[str, Registration] = {entry.name: entry for entry in _BUILT_IN}


def register(name: str, factory: Callable[..., Policy], *, needs_plan: bool = False, description: str = "") -> None:
    """Make a policy known by a name in this process.

    Parameters
    ----------
    name
        Letters, digits, ``_``, ``.`` and ``-``; not yet taken.
    factory
        Makes the policy of one worker: called as ``factory(instance, plan)`` if ``needs_plan``, else as
        ``factory(instance)``. Each worker has a policy of its own, so it returns a new object each time.
    needs_plan
        Whether the policy follows a plan.
    description
        One line for people.

    Raises
    ------
    UsageError
        The name is malformed or taken, or the factory cannot be called.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            "not a name for a policy",
            where="register",
            value=name,
            expected="letters, digits, '_', '.' and '-', beginning with a letter or digit, and not 'all'",
        )
    if not callable(factory):
        raise UsageError(
            f"the factory of policy {name!r} is not callable",
            where="register",
            value=factory,
            expected="a function or class that makes a policy, such as one derived from BasePolicy",
        )
    if name in _registered:
        raise UsageError(
            "a policy of this name is already registered",
            where="register",
            value=name,
            expected="another name" if name in POLICIES else "another name, or unregister() first",
        )
    _registered[name] = Registration(name, factory, needs_plan, description)


def unregister(name: str) -> None:
    """Forget a policy that was registered.

    Raises
    ------
    UsageError
        It is built in, or was not registered.
    """
    if name in POLICIES or name not in _registered:
        own = [known for known in _registered if known not in POLICIES]
        what = (
            "a built-in policy cannot be unregistered" if name in POLICIES else "no policy of this name is registered"
        )
        raise UsageError(
            what, where="unregister", value=name, expected=" | ".join(own) or "nothing: none is registered"
        )
    del _registered[name]


def registered() -> Mapping[str, Registration]:
    """Return all policies known to this process, by name, the built-in ones first."""
    return MappingProxyType(_registered)


def needs_plan(name: str) -> bool:
    """Return whether a policy follows a plan.

    Raises
    ------
    UsageError
        The name is unknown.
    """
    return _find(name).needs_plan


def known_elsewhere(name: str) -> bool:
    """Return whether other processes on this device know a policy: it is built in, or comes in an installed package."""
    return name in POLICIES or bool(entry_points(group=ENTRY_POINTS, name=name))


def make_policy(name: str, instance: Instance, plan: PlanSpec | None) -> Policy:
    """Make one worker's policy, with the parameters of the scenario's policy section.

    Raises
    ------
    UsageError
        The name is unknown, the policy follows a plan and there is none, or what its factory returns is no policy.
    """
    entry = _find(name)
    if entry.needs_plan and plan is None:
        raise UsageError(f"policy {name!r} follows a plan, and none was given", expected="--plan PLAN")
    policy = entry.factory(instance, plan) if entry.needs_plan else entry.factory(instance)
    missing = [member for member in _MEMBERS if not hasattr(policy, member)]
    if missing:
        raise UsageError(
            f"what the factory of policy {name!r} returns is no policy: it lacks {', '.join(missing)}",
            value=type(policy).__name__,
            expected="an object of a class derived from planner.policy.base.BasePolicy",
        )
    return policy


def _find(name: str) -> Registration:
    if name not in _registered:
        _import_installed(name)
    if name not in _registered:
        raise UsageError(
            "unknown policy",
            where="--policy",
            value=name,
            expected=f"{' | '.join(_registered)}; your own policy must be registered in this process, or come in a "
            f"package that is installed here, on each agent's device too, with an entry point in {ENTRY_POINTS!r}",
        )
    return _registered[name]


def _import_installed(name: str) -> None:
    """Import the module of an installed package that registers a policy, if there is one."""
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            point.load()
        except Exception as error:  # another's code may raise anything
            raise UsageError(
                f"policy {name!r} cannot be loaded: {type(error).__name__}: {error}",
                where=f"entry point {name} in {ENTRY_POINTS!r}",
                value=point.value,
                expected="a module that can be imported",
            ) from error
        if name not in _registered:
            raise UsageError(
                f"importing its module does not register policy {name!r}",
                where=f"entry point {name} in {ENTRY_POINTS!r}",
                value=point.value,
                expected=f"a module that calls planner.policies.register({name!r}, ...)",
            )
