"""Rules that a scenario must satisfy beyond its schema, one ``check_*`` function each; all are run on every file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from planner.errors import Fault
from planner.formats.yaml import Location
from planner.scenario.types import EventSpec, PolicySpec, ScenarioSpec, SourceSpec, WorkerSpec, percentile_level
from planner.schemas import nearest
from planner.units import format_quantity


@dataclass(frozen=True)
class Finding:
    """An error whose file and line are not yet known.

    Parameters
    ----------
    location
        Where the value is, or should be, in the file.
    needs
        Other values that the rule depends on; where one of them is itself wrong, the finding is dropped.
    """

    location: Location
    what: str
    value: object = None
    expected: str | None = None
    needs: tuple[Location, ...] = ()

    def fault(self, where: str) -> Fault:
        """Return the error, with file and line in ``where``."""
        return Fault(self.what, where, self.value, self.expected)


Check = Callable[[ScenarioSpec], Iterator[Finding]]

NAME: Final = re.compile(r"[^\W_][\w.-]*")


def unknown(kind: str, name: str, known: Iterable[str], location: Location) -> Finding:
    """Return that no entry of a kind has this name, with the most similar name that one has."""
    names = tuple(known)
    guess = nearest(name, names)
    expected = f"one of {', '.join(names)}" + (f" (did you mean {guess!r}?)" if guess else "")
    return Finding(location, f"unknown {kind}", name, expected if names else f"an entry in {kind}s:", ((f"{kind}s",),))


def check_names(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that names are plain words: they become parts of file names, network resources and addresses."""
    for kind in ("models", "workers", "networks", "sources"):
        yield from of_names(kind, getattr(scenario, kind))


def of_names(kind: str, names: Iterable[str]) -> Iterator[Finding]:
    """Yield which names of a section are no plain words."""
    for name in names:
        if not NAME.fullmatch(name):
            expected = "letters, digits, '_', '.' and '-', beginning with a letter or digit"
            yield Finding((kind, name), "not a usable name", name, expected)


def check_names_apart(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that no network has a worker's name: both are resources, which are known by their names."""
    for name in scenario.networks:
        if name in scenario.workers:
            yield Finding(("networks", name), "a worker already has this name", name, "a name that no worker has")


def _named_workers(scenario: ScenarioSpec) -> Iterator[tuple[Location, str]]:
    """Yield each location that names a worker, with the name."""
    for name, network in scenario.networks.items():
        for index, member in enumerate(network.members):
            yield ("networks", name, "members", index), member
        for index, link in enumerate(network.links):
            for end, member in enumerate(link):
                yield ("networks", name, "links", index, end), member
    for name, source in scenario.sources.items():
        yield ("sources", name, "worker"), source.worker
    for index, event in enumerate(scenario.events):
        if event.worker is not None:
            yield ("events", index, "worker"), event.worker
    yield from _named_in_policy(scenario.policy)


def _named_in_policy(policy: PolicySpec) -> Iterator[tuple[Location, str]]:
    for index, member in enumerate(policy.ring or ()):
        yield ("policy", "ring", index), member
    for name, neighbours in (policy.neighbours or {}).items():
        yield ("policy", "neighbours", name), name
        for index, member in enumerate(neighbours):
            yield ("policy", "neighbours", name, index), member


def check_known_workers(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that every named worker has an entry."""
    for location, name in _named_workers(scenario):
        if name not in scenario.workers:
            yield unknown("worker", name, scenario.workers, location)


def check_known_models(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that every model that a source names has an entry."""
    for source, spec in scenario.sources.items():
        for index, name in enumerate(spec.models):
            if name not in scenario.models:
                yield unknown("model", name, scenario.models, ("sources", source, "models", index))


def check_known_in_events(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that every source and network that an event names has an entry."""
    for index, event in enumerate(scenario.events):
        if event.source is not None and event.source not in scenario.sources:
            yield unknown("source", event.source, scenario.sources, ("events", index, "source"))
        if event.network is not None and event.network not in scenario.networks:
            yield unknown("network", event.network, scenario.networks, ("events", index, "network"))


def check_model_origin(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a model is an ONNX file or a profile, not both and not neither."""
    for name, model in scenario.models.items():
        location, expected = ("models", name), "either path: FILE.onnx or profile: NAME"
        needs: tuple[Location, ...] = ((*location, "path"), (*location, "profile"))
        if model.path is None and model.profile is None:
            yield Finding(location, "the model has neither path nor profile", None, expected, needs)
        elif model.path is not None and model.profile is not None:
            yield Finding(location, "the model has both path and profile", None, expected, needs)


def check_arrivals(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a source defines when its samples arrive: by a rate, as a batch, or by a file of times."""
    for name, source in scenario.sources.items():
        location = ("sources", name)
        needs: tuple[Location, ...] = ((*location, "arrivals"), (*location, "trace"))
        if source.rate_per_s is None and source.arrivals in ("poisson", "constant", "mmpp"):
            what, expected = f"arrivals: {source.arrivals} need a rate", "a rate such as 10 /s"
            yield Finding((*location, "rate"), what, None, expected, needs)
        yield from _of_bursts(location, source)
        if source.arrivals == "trace" and source.trace is None:
            expected = "a text file of times in seconds, one per line"
            yield Finding((*location, "trace"), "arrivals: trace need a file", None, expected, needs)
        if source.arrivals != "trace" and source.trace is not None:
            what = f"arrivals: {source.arrivals} take no file of times"
            yield Finding((*location, "trace"), what, source.trace, "arrivals: trace, or no trace:", needs)


def _of_bursts(location: Location, source: SourceSpec) -> Iterator[Finding]:
    """Yield whether bursts are missing, out of place, or bring more than the mean rate alone."""
    needs: tuple[Location, ...] = ((*location, "arrivals"), (*location, "bursts"))
    bursts = source.bursts
    if source.arrivals == "mmpp" and bursts is None:
        expected = "bursts such as {factor: 5, length: 2 s, every: 30 s}"
        yield Finding((*location, "bursts"), "arrivals: mmpp need bursts", None, expected, needs)
    elif source.arrivals != "mmpp" and bursts is not None:
        what = f"arrivals: {source.arrivals} have no bursts"
        yield Finding((*location, "bursts"), what, None, "arrivals: mmpp, or no bursts:", needs)
    elif bursts is not None and bursts.length_s >= bursts.every_s:
        what, expected = "bursts never end", "a time longer than their length"
        every = format_quantity(bursts.every_s, "time")
        yield Finding((*location, "bursts", "every"), what, every, expected, ((*location, "bursts", "length"),))
    elif bursts is not None and bursts.factor * bursts.length_s > bursts.every_s:
        yield Finding(
            (*location, "bursts", "every"),
            "bursts alone bring more than the mean rate",
            format_quantity(bursts.every_s, "time"),
            f"{bursts.factor:g} times their length or more: {format_quantity(bursts.factor * bursts.length_s, 'time')}",
            ((*location, "bursts", "factor"), (*location, "bursts", "length")),
        )


def check_network_kinds(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a shared medium has members and no links, and a point-to-point network links and no members."""
    keys = {"shared": ("members", "links"), "point-to-point": ("links", "members")}
    fewest = {"members": 2, "links": 1}
    for name, network in scenario.networks.items():
        location = ("networks", name)
        needs: tuple[Location, ...] = ((*location, "kind"),)
        right, wrong = keys[network.kind]
        if len(getattr(network, right)) < fewest[right]:
            expected = "two or more workers" if right == "members" else "pairs of workers such as [[a, b], [b, c]]"
            yield Finding((*location, right), f"a {network.kind} network needs {right}", None, expected, needs)
        if getattr(network, wrong):
            yield Finding((*location, wrong), f"a {network.kind} network has no {wrong}", None, f"{right}:", needs)
        if network.kind == "point-to-point" and network.relay != "none":
            what = "only a shared network has an access point"
            yield Finding((*location, "relay"), what, network.relay, "relay: none", needs)


def of_repeats(names: Iterable[str], location: Location, what: str) -> Iterator[Finding]:
    """Yield which names a list has twice."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Finding((*location, index), what, name, "each once")
        seen.add(name)


def check_repeats(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that no list names a worker or a model twice."""
    for name, network in scenario.networks.items():
        yield from of_repeats(network.members, ("networks", name, "members"), "this worker is already named")
    for name, source in scenario.sources.items():
        yield from of_repeats(source.models, ("sources", name, "models"), "this model is already named")
    yield from of_repeats(scenario.policy.ring or (), ("policy", "ring"), "this worker is already named")
    for name, neighbours in (scenario.policy.neighbours or {}).items():
        location = ("policy", "neighbours", name)
        yield from of_repeats(neighbours, location, "this worker is already named")


def check_pairs(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a link joins two workers and is named once for both directions, and that neighbours are others."""
    for name, network in scenario.networks.items():
        seen: set[frozenset[str]] = set()
        for index, link in enumerate(network.links):
            location = ("networks", name, "links", index)
            if link[0] == link[1]:
                yield Finding(location, "the link joins a worker to itself", list(link), "two different workers")
            elif frozenset(link) in seen:
                yield Finding(location, "this link is already named", list(link), "each pair once, for both directions")
            seen.add(frozenset(link))
    for name, neighbours in (scenario.policy.neighbours or {}).items():
        if name in neighbours:
            location = ("policy", "neighbours", name, neighbours.index(name))
            yield Finding(location, "a worker is not its own neighbour", name, "other workers")


def check_memory(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a worker has memory left beside the agent itself."""
    for name, worker in scenario.workers.items():
        yield from of_memory(("workers", name), worker)


def of_memory(location: Location, worker: WorkerSpec) -> Iterator[Finding]:
    """Yield whether the agent leaves a worker no memory."""
    if worker.memory_bytes <= worker.base_memory_bytes:
        base = format_quantity(worker.base_memory_bytes, "memory")
        yield Finding(
            (*location, "memory"),
            f"no memory is left for models: the agent itself takes {base}",
            format_quantity(worker.memory_bytes, "memory"),
            f"more than {base}, or a smaller base_memory",
            ((*location, "base_memory"),),
        )


def check_power(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a busy worker draws at least its idle power, and that the goal ``energy`` knows the power of all."""
    for name, worker in scenario.workers.items():
        yield from of_power(("workers", name, "power"), worker, scenario.objective.goal)


def of_power(location: Location, worker: WorkerSpec, goal: str) -> Iterator[Finding]:
    """Yield whether a worker lacks a power that the goal needs, or draws less when busy than when idle."""
    if worker.power is None and goal == "energy":
        expected = "power such as {idle: 2 W, busy: 8 W} for every worker"
        yield Finding(location, "the goal energy needs it", None, expected, (("objective", "goal"),))
    elif worker.power is not None and worker.power.busy_w < worker.power.idle_w:
        yield Finding(
            (*location, "busy"),
            "a busy worker draws less power than an idle one",
            format_quantity(worker.power.busy_w, "power"),
            f"at least {format_quantity(worker.power.idle_w, 'power')}, the power of idle",
            ((*location, "idle"),),
        )


def check_time_limits(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that what refers to a deadline has one, and that percentiles are between 0 and 100."""
    for name, source in scenario.sources.items():
        location: Location = ("sources", name)
        needs: tuple[Location, ...] = ((*location, "deadline"),)
        if source.deadline_s is None and source.miss_at_most is not None:
            share = format_quantity(source.miss_at_most, "fraction")
            yield Finding((*location, "miss_at_most"), "without a deadline none is missed", share, _DEADLINE, needs)
        if source.deadline_s is None and source.late == "drop":
            yield Finding((*location, "late"), "without a deadline no sample is late", "drop", _DEADLINE, needs)
        if source.deadline_s is None and scenario.objective.goal == "misses":
            needs = (("objective", "goal"), *needs)
            yield Finding((*location, "deadline"), "the goal misses needs it", None, _DEADLINE, needs)
        if scenario.objective.goal == "makespan":
            for key in ("miss_at_most", "percentile"):
                if source.miss_at_most is not None if key == "miss_at_most" else source.percentiles_s:
                    what = "the goal makespan knows no shares of late samples"
                    yield Finding((*location, key), what, None, "another goal", (("objective", "goal"),))
        for key in source.percentiles_s:
            if percentile_level(key) is None:
                expected = "p and a number between 0 and 100, such as p95 or p99.9"
                yield Finding((*location, "percentile", key), "not a percentile", key, expected)


def check_decode(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that a source of sequences has only limits that sequences know, and draws only with ``next: sample``."""
    for name, source in scenario.sources.items():
        if source.decode is None:
            continue
        location: Location = ("sources", name)
        expected = "max_ttft and max_tpot in decode:, or max_mean_delay for whole sequences"
        for key, given in (("deadline", source.deadline_s), ("percentile", source.percentiles_s or None)):
            if given is not None:
                yield Finding((*location, key), "a source of sequences has no such limit", None, expected)
        if source.queue_timeout_s is not None:
            what, expected = "a source of sequences drops none", "no queue_timeout"
            yield Finding((*location, "queue_timeout"), what, None, expected)
        if source.decode.next == "argmax" and "temperature" in source.decode.model_fields_set:
            what, at = "next: argmax draws no tokens", (*location, "decode", "temperature")
            yield Finding(at, what, source.decode.temperature, "next: sample, or no temperature:")


_DEADLINE: Final = "a deadline such as 200 ms"

_EVENT_FIELDS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "leave": (("worker", "network"), ()),
    "join": (("worker", "network"), ()),
    "slow": (("worker", "network"), ("factor",)),
    "recover": (("worker", "network"), ()),
    "rate": (("source",), ("rate",)),
    "priority": (("source",), ("priority",)),
    "bandwidth": (("network",), ("bandwidth",)),
}
"""For each action: what it acts on (one of these), and which further keys it needs."""


def _event_keys(event: EventSpec) -> dict[str, Any]:
    """Return the keys of an event as in the file, without those that every event has."""
    given = event.model_dump(by_alias=True, exclude_none=True)
    return {key: value for key, value in given.items() if key not in ("at", "action")}


def check_ring(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that every source's worker is in the ring, since its samples start there."""
    ring = scenario.policy.ring
    if ring is None:
        return
    for name, source in scenario.sources.items():
        if source.worker in scenario.workers and source.worker not in ring:
            what = f"the ring leaves out the worker of source {name}"
            yield Finding(("policy", "ring"), what, list(ring), f"a list that includes {source.worker}", ())


def check_events(scenario: ScenarioSpec) -> Iterator[Finding]:
    """Check that an event has the keys that its action needs, and no others."""
    for index, event in enumerate(scenario.events):
        on, further = _EVENT_FIELDS[event.action]
        location = ("events", index)
        needs: tuple[Location, ...] = ((*location, "action"), *((*location, key) for key in on))
        given = _event_keys(event)
        expected = " and ".join((" or ".join(f"{key}:" for key in on), *(f"{key}:" for key in further)))
        if sum(key in given for key in on) != 1:
            what = f"action {event.action} acts on one {' or '.join(on)}"
            yield Finding(location, what, None, expected, needs)
        for key in further:
            if key not in given:
                yield Finding((*location, key), f"action {event.action} needs {key}", None, expected, needs)
        for key, value in given.items():
            if key not in (*on, *further):
                yield Finding((*location, key), f"action {event.action} has no {key}", value, expected, needs)


CHECKS: Final[tuple[Check, ...]] = (
    check_names,
    check_names_apart,
    check_known_workers,
    check_known_models,
    check_known_in_events,
    check_model_origin,
    check_arrivals,
    check_network_kinds,
    check_repeats,
    check_pairs,
    check_memory,
    check_power,
    check_time_limits,
    check_decode,
    check_ring,
    check_events,
)
"""All rules, in the order in which they are run."""


def check_scenario(scenario: ScenarioSpec) -> list[Finding]:
    """Return what is wrong with a scenario by all rules."""
    return [finding for check in CHECKS for finding in check(scenario)]
