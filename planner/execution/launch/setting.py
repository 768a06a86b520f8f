"""Where a validation takes place, and how long it lasts."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import Emulation
from planner.execution.launch.emulated import EmulatedNetwork
from planner.execution.launch.local import local_agents, namespaced_agents
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Instance


@dataclass(frozen=True)
class Setting:
    """The agents of a run, and what of the scenario is played on them.

    Parameters
    ----------
    instance
        The scenario as it can be met there.
    agents
        Brings up a coordinator that has found all agents, and lets them go.
    paced
        Whether blocks take the scenario's times on hosts that are faster.
    emulation
        Plays the scenario's network on this host.
    """

    instance: Instance
    agents: AbstractContextManager[Coordinator]
    paced: bool = False
    emulation: Emulation | None = None


def on_this_host(instance: Instance, *, paced: bool) -> Setting:
    """One agent process a worker: paced to the scenario, its network included; or as fast as this host is."""
    emulation = EmulatedNetwork(instance) if paced else None
    return Setting(instance, local_agents(instance.workers), paced, emulation)


def in_namespaces(instance: Instance, *, paced: bool) -> Setting:
    """One agent process a worker, joined by real links of the scenario's bandwidths, which have no latency."""
    instance = instance.without_latency()
    return Setting(instance, namespaced_agents(instance), paced)


def shortened(
    instance: Instance, *, seed: int, max_samples: int | None = None, duration_s: float | None = None
) -> Instance:
    """Return the instance with the samples that arrive within ``duration_s``, at most ``max_samples`` per source."""
    if duration_s is not None:
        instance = first_seconds(instance, duration_s, seed)
    return instance if max_samples is None else first_samples(instance, max_samples)


def first_samples(instance: Instance, count: int) -> Instance:
    """Give the instance with ``count`` samples of each source at most."""
    return instance.with_samples({source: min(count, instance.samples(source)) for source in instance.sources})


def first_seconds(instance: Instance, duration_s: float, seed: int) -> Instance:
    """Give the instance with the samples that arrive within ``duration_s``, however many, one of each source at least.

    A source with a rate goes on arriving beyond the number of samples that the scenario asks for.
    """
    rates = {name: source.rate_per_s or 0.0 for name, source in instance.scenario.sources.items()}
    # Enough for any seed: as many as are expected, and ten times their standard deviation more.
    enough = {
        name: math.ceil(rate * duration_s + 10 * math.sqrt(rate * duration_s) + 10) for name, rate in rates.items()
    }
    plenty = instance.with_samples({name: max(enough[name], instance.samples(name)) for name in enough})
    found = {source: sum(at_s <= duration_s for at_s in instance_arrivals(plenty, source, seed)) for source in rates}
    return instance.with_samples({source: max(count, 1) for source, count in found.items()})
