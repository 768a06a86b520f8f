"""Environment and length of a validation run."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.coordinator.deployment import Emulation
from planner.execution.launch.emulated import EmulatedNetwork
from planner.execution.launch.local import local_agents, namespaced_agents
from planner.scenario.arrivals import instance_arrivals
from planner.scenario.instance import Instance

THIS_HOST: Final = "this host"


@dataclass(frozen=True)
class Setting:
    """The agents of a run, and what they emulate of the scenario.

    Parameters
    ----------
    instance
        The scenario as far as this environment can reproduce it.
    agents
        Context manager that returns a coordinator which has found all agents.
    paced
        Whether faster hosts slow blocks down to the scenario's times.
    emulation
        Emulates the scenario's network on this host.
    """

    instance: Instance
    agents: AbstractContextManager[Coordinator]
    paced: bool = False
    emulation: Emulation | None = None


def on_this_host(instance: Instance, *, paced: bool) -> Setting:
    """Return a setting with one agent process per worker, paced to the scenario and its network if ``paced``."""
    instance = _together(instance, paced=paced)
    emulation = EmulatedNetwork(instance) if paced else None
    return Setting(instance, local_agents(instance.workers), paced, emulation)


def in_namespaces(instance: Instance, *, paced: bool) -> Setting:
    """Return a setting with one agent process per worker, joined by real links with the scenario's bandwidths.

    The links have no latency.
    """
    instance = _together(instance.without_latency(), paced=paced)
    return Setting(instance, namespaced_agents(instance), paced)


def _together(instance: Instance, *, paced: bool) -> Instance:
    """Return the instance with all workers on this host; paced ones take their own times, whatever others do."""
    return instance.on_hosts(None if paced else THIS_HOST)


def shortened(
    instance: Instance, *, seed: int, max_samples: int | None = None, duration_s: float | None = None
) -> Instance:
    """Return the instance with the samples that arrive within ``duration_s``, at most ``max_samples`` per source."""
    if duration_s is not None:
        instance = first_seconds(instance, duration_s, seed)
    return instance if max_samples is None else first_samples(instance, max_samples)


def first_samples(instance: Instance, count: int) -> Instance:
    """Return the instance with at most ``count`` samples of each source."""
    return instance.with_samples({source: min(count, instance.samples(source)) for source in instance.sources})


def first_seconds(instance: Instance, duration_s: float, seed: int) -> Instance:
    """Return the instance with the samples that arrive within ``duration_s``, but at least one of each source.

    For a source with a rate, these may be more samples than in the scenario.
    """
    rates = {name: source.rate_per_s or 0.0 for name, source in instance.scenario.sources.items()}
    # The expected number plus ten standard deviations suffices for any seed.
    enough = {
        name: math.ceil(rate * duration_s + 10 * math.sqrt(rate * duration_s) + 10) for name, rate in rates.items()
    }
    plenty = instance.with_samples({name: max(enough[name], instance.samples(name)) for name in enough})
    arrived = {source: sum(at_s <= duration_s for at_s in instance_arrivals(plenty, source, seed)) for source in rates}
    return instance.with_samples({source: max(count, 1) for source, count in arrived.items()})
