"""A plan for what is left: solved again, from the plan before, when workers left, came back or became slow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from planner.plan.types import Plan
from planner.scenario.instance import Instance
from planner.scenario.types import NetworkSpec, PolicySpec
from planner.solve.solve import solve

TIME_LIMIT_S: Final = 5.0
"""While it lasts the samples go on by what is left of the plan before."""

GAP: Final = 0.01
"""Enough for a plan that replaces one which has lost a worker."""


def remaining(instance: Instance, absent: Collection[str]) -> Instance:
    """Give the instance without some of its workers, their sources, and the paths that lead over them."""
    scenario = instance.scenario
    stays = [name for name in instance.workers if name not in absent]
    networks = {name: _without(network, stays) for name, network in scenario.networks.items()}
    reduced = scenario.model_copy(
        update={
            "workers": {name: scenario.workers[name] for name in stays},
            "networks": {name: network for name, network in networks.items() if network.members or network.links},
            "sources": {name: spec for name, spec in scenario.sources.items() if spec.worker in stays},
            "policy": PolicySpec(),
            "events": (),
        }
    )
    return Instance(
        scenario=reduced,
        profiles=instance.profiles,
        paths={
            sender: {
                receiver: path
                for receiver, path in instance.paths.get(sender, {}).items()
                if all(hop.receiver in stays for hop in path.hops)
            }
            for sender in stays
        },
        traces={name: times for name, times in instance.traces.items() if name in reduced.sources},
    )


def slowed(instance: Instance, slowness: Mapping[str, float]) -> Instance:
    """Give the instance with some of its workers so many times slower."""
    workers = {
        name: spec.model_copy(update={"speed": spec.speed / slowness[name]}) if name in slowness else spec
        for name, spec in instance.scenario.workers.items()
    }
    return instance.model_copy(update={"scenario": instance.scenario.model_copy(update={"workers": workers})})


def _without(network: NetworkSpec, stays: Collection[str]) -> NetworkSpec:
    return network.model_copy(
        update={
            "members": tuple(member for member in network.members if member in stays),
            "links": tuple(link for link in network.links if link[0] in stays and link[1] in stays),
        }
    )


class Replanner:
    """Solves an instance for the workers that are there, as fast as they are; it remembers what it has found before.

    Parameters
    ----------
    plan
        The plan for all workers: its routes that still exist are where each search starts.
    """

    def __init__(self, instance: Instance, plan: Plan, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._instance = instance
        self._plan = plan
        self._time_limit_s = time_limit_s
        self._known: dict[tuple[frozenset[str], frozenset[tuple[str, float]]], Plan | None] = {
            (frozenset(), frozenset()): plan
        }

    def __call__(self, absent: Collection[str], slowness: Mapping[str, float] | None = None) -> Plan | None:
        """Give a plan for the sources whose workers are there, if there is one; its routes avoid the absent ones.

        Parameters
        ----------
        slowness
            How many times longer blocks take now on some workers.
        """
        slow = {name: factor for name, factor in (slowness or {}).items() if name not in absent}
        key = frozenset(absent), frozenset(slow.items())
        if key not in self._known:
            self._known[key] = self._solve(slowed(remaining(self._instance, absent), slow))
        return self._known[key]

    def _solve(self, left: Instance) -> Plan | None:
        # Arrivals without a rate have a plan only for the goals that do without rates.
        rated = all(source.rate_per_s is not None for source in left.scenario.sources.values())
        if not left.sources or (left.scenario.objective.goal == "delay" and not rated):
            return None
        return solve(left, routes="shared", start=self._plan, gap=GAP, time_limit_s=self._time_limit_s).plan
