"""Unlike device classes: what a block takes depends on the worker, and nothing on the order in a file."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.plan.memory import memory_bytes
from planner.plan.types import Route, Stage
from planner.plan.verify import verify
from planner.profiling.types import Profile
from planner.scenario.instance import Instance
from planner.scenario.paths import find_paths
from planner.scenario.types import ModelSpec, NetworkSpec, ObjectiveSpec, ScenarioSpec, SourceSpec, WorkerSpec
from planner.solvers import METHODS, solve
from planner.solvers.core.build import build_problem
from planner.solvers.core.search_state import Options
from planner.solvers.methods import bottleneck_dp, exhaustive
from planner.solvers.sensitivity import sensitivity
from tests.examples import examples
from tests.instances import MIB, make_instance, make_profile

_V = TypeVar("_V")

PROVEN = ("milp", "exhaustive", "colgen", "convex")
"""Methods that decide whether there is a plan."""
NIGHTLY_ROOMS = (
    (1000, 400, 1, "box"),
    (260, 1000, 16, "camera"),
    (210, 540, 1, "box"),
    (210, 539, 0, "camera"),
    (251, 511, 5, "box"),
    (221, 530, 10, "camera"),
)
FIXED = ("local", "two-part", "equal", "ar-mdi")
"""Methods that try a few routes only."""


def unlike(seed: int, *, room: float, goal: str = "delay", sources: int = 2) -> Instance:
    """Return a random instance of three workers of two classes, whose blocks differ in time, weights and peaks.

    ``room`` is each worker's memory relative to that of all blocks on the mean of both classes.
    """
    random = np.random.default_rng(seed)
    blocks, names = 3, ["w0", "w1", "w2"]
    classes = ["cam", "gpu", str(random.choice(["cam", "gpu"]))]
    profiles: dict[str, dict[str, Profile]] = {}
    for model in ("m0", "m1"):
        cuts = [*(random.uniform(1e3, 1e5, blocks)).astype(int).tolist(), 2000]
        profiles[model] = {
            name: make_profile(
                model,
                device_class=name,
                block_s=(random.uniform(0.5, 1.5, blocks) * pace).tolist(),
                cut_bytes=cuts,
                weight_bytes=(random.uniform(5, 15, blocks) * factor * MIB).astype(int).tolist(),
                activation_bytes=(random.uniform(0.5, 1.5, blocks) * peak * MIB).astype(int).tolist(),
                parameters=1_000_000,
            )
            for name, pace, factor, peak in (("cam", 0.02, 1.0, 1.0), ("gpu", 0.002, 0.5, 60.0))
        }
    needed = 0.5 * (2 * blocks * 7.5 + 30.5) * MIB
    scenario = ScenarioSpec(
        models={model: ModelSpec(profile=model) for model in profiles},
        workers={
            name: WorkerSpec(
                device_class=device_class,
                memory_bytes=float(needed * room * random.uniform(0.5, 1.5)),
                base_memory_bytes=0.0,
                speed=float(random.choice([1.0, 2.0])),
            )
            for name, device_class in zip(names, classes, strict=True)
        },
        networks={
            "wifi": NetworkSpec(kind="shared", members=tuple(names), bandwidth_bytes_per_s=1e7, latency_s=0.001),
            "wire": NetworkSpec(
                kind="point-to-point", links=(("w0", "w1"),), bandwidth_bytes_per_s=1e7, latency_s=0.001
            ),
        },
        sources={
            f"s{index}": SourceSpec(
                worker=str(random.choice(names)),
                models=("m0", "m1") if index else ("m0",),
                rate_per_s=float(random.uniform(1.0, 5.0)),
                samples=10,
                priority=float(random.choice([1.0, 1.0, 4.0])),
            )
            for index in range(sources)
        },
        objective=ObjectiveSpec.model_validate({"goal": goal}),
    )
    return Instance(scenario=scenario, profiles=profiles, paths=find_paths(scenario))


def permuted(instance: Instance, seed: int) -> Instance:
    """Return the instance with everything in another order: workers, sources, models, networks, classes and pairs."""
    random = np.random.default_rng(seed)

    def keys(entries: Mapping[str, _V]) -> dict[str, _V]:
        return {name: entries[name] for name in random.permutation(sorted(entries)).tolist()}

    def items(entries: Sequence[_V]) -> tuple[_V, ...]:
        return tuple(entries[index] for index in random.permutation(len(entries)).tolist())

    spec = instance.scenario
    ring: dict[str, Any] = {"ring": spec.policy.ring or instance.workers}  # by default it is the order of the workers
    scenario = spec.model_copy(
        update={
            "models": keys(spec.models),
            "workers": keys(spec.workers),
            "networks": {
                name: network.model_copy(
                    update={"members": items(network.members), "links": items([items(link) for link in network.links])}
                )
                for name, network in keys(spec.networks).items()
            },
            "sources": {
                name: source.model_copy(update={"models": items(source.models)})
                for name, source in keys(spec.sources).items()
            },
            "policy": spec.policy.model_copy(update=ring),
        }
    )
    profiles = {model: keys(by_class) for model, by_class in keys(instance.profiles).items()}
    return Instance(scenario=scenario, profiles=profiles, paths=find_paths(scenario))


def fits(instance: Instance, workers: Sequence[str]) -> bool:
    """Whether a placement of the only source's blocks fits every worker's memory."""
    stages = [Stage(worker=worker, first_block=block, last_block=block) for block, worker in enumerate(workers)]
    used = memory_bytes(instance, {"camera": [Route(model="m", stages=tuple(stages))]})
    return all(used[name] <= instance.worker(name).memory_bytes for name in instance.workers)


@pytest.mark.parametrize(
    ("camera_mib", "box_mib", "fitting", "first"),
    [
        (1000, 400, 1, "camera"),
        (260, 1000, 16, "box"),
        (210, 540, 1, "camera"),
        (210, 539, 0, "box"),
        (251, 511, 5, "camera"),
        (221, 530, 10, "box"),
        *(pytest.param(*case, marks=pytest.mark.nightly) for case in NIGHTLY_ROOMS),
    ],
)
def test_every_method_agrees_with_all_placements(camera_mib: int, box_mib: int, fitting: int, first: str) -> None:
    """Four blocks of 10 MiB, with peaks of 1 MiB on the camera and of 300 MiB on the box."""
    sizes = {"block_s": [0.02] * 4, "weight_bytes": int(10 * MIB), "cut_bytes": [1000] * 5}
    profiles = [
        make_profile(device_class="cam", activation_bytes=int(MIB), **sizes),  # type: ignore[arg-type]  # of several kinds
        make_profile(device_class="gpu", activation_bytes=int(300 * MIB), **sizes),  # type: ignore[arg-type]  # likewise
    ]
    workers: dict[str, dict[str, Any]] = {
        "camera": {"device_class": "cam", "memory_bytes": camera_mib * MIB},
        "box": {"device_class": "gpu", "memory_bytes": box_mib * MIB, "speed": 20.0},
    }
    names = sorted(workers, key=lambda name: name != first)
    instance = make_instance(
        profiles=profiles,
        workers={name: workers[name] for name in names},
        sources={"camera": {"worker": "camera", "rate_per_s": 2.0}},
    )
    assert sum(fits(instance, placed) for placed in itertools.product(names, repeat=4)) == fitting
    for method in ("auto", "search", *PROVEN):
        solution = solve(instance, method=method, time_limit_s=10.0)
        assert (solution.plan is not None) == (fitting > 0), method
        assert solution.plan is not None or (solution.status == "infeasible" and solution.reasons), method
        if solution.plan is not None:
            verify(instance, solution.plan)


@examples(2, nightly=20)
@given(
    seed=st.integers(0, 10_000),
    room=st.sampled_from([0.6, 0.9, 1.2, 2.0]),
    goal=st.sampled_from(["delay", "throughput", "makespan"]),
    order=st.integers(1, 100),
)
def test_plans_hold_and_do_not_depend_on_the_order(seed: int, room: float, goal: str, order: int) -> None:
    instance = unlike(seed, room=room, goal=goal)
    other = permuted(instance, order)
    oracle = exhaustive.solve(build_problem(instance), Options()).status
    for method in METHODS:
        if method == "dp":
            continue  # needs a single source and one visit; see below
        one, two = (solve(each, method=method, gap=0.01) for each in (instance, other))
        assert one.status == two.status, method
        assert sorted(one.reasons) == sorted(two.reasons), method
        if method in PROVEN:
            assert (one.plan is None) <= (oracle == "infeasible"), method
        if oracle == "infeasible":
            assert method in {"colgen", "convex"} or one.plan is None, method
        if one.plan is not None and two.plan is not None:
            verify(instance, one.plan)
            verify(other, two.plan)
            assert one.plan.objective == pytest.approx(two.plan.objective, rel=1e-9), method


@given(seed=st.integers(0, 100), order=st.integers(1, 100))
def test_methods_see_one_order_only(seed: int, order: int) -> None:
    """Solvers take turns and break ties by order; of equally fast networks, names choose the path."""
    instance = unlike(seed, room=1.0)
    other = permuted(instance, order)
    assert other.paths == instance.paths
    one, two = (each.in_order_of_names().scenario for each in (instance, other))
    for entries in ("workers", "sources", "networks"):
        assert list(getattr(one, entries).items()) == list(getattr(two, entries).items())
    assert one.policy.ring == instance.workers


@examples(8, nightly=60)
@given(seed=st.integers(0, 10_000), room=st.sampled_from([0.5, 0.7, 1.0, 1.5]), order=st.integers(1, 100))
def test_the_bottleneck_partition_knows_each_class(seed: int, room: float, order: int) -> None:
    instance = unlike(seed, room=room, goal="throughput", sources=1)
    links = tuple(itertools.combinations(instance.workers, 2))
    wired = NetworkSpec(kind="point-to-point", links=links, bandwidth_bytes_per_s=1e7)
    instance = instance.with_scenario(networks={"wire": wired})
    instance = instance.model_copy(update={"paths": find_paths(instance.scenario)})
    problem = build_problem(instance, max_visits=1)
    assert not bottleneck_dp.misfits(problem)
    oracle = exhaustive.solve(problem, Options())
    found = [solve(each, method="dp", max_visits=1) for each in (instance, permuted(instance, order))]
    assert [each.status for each in found] == [oracle.status] * 2
    for solution in found:
        if solution.plan is not None:
            verify(instance, solution.plan)
            assert solution.plan.objective == pytest.approx(oracle.bound, rel=1e-9)


def test_the_value_of_memory_is_that_of_the_workers_own_class() -> None:
    """The box lacks 1 MiB for its own peak, which is 300 times that of the camera."""
    sizes = {"block_s": [0.02, 0.02], "weight_bytes": int(10 * MIB), "cut_bytes": [1000] * 3}
    instance = make_instance(
        profiles=[
            make_profile(device_class="cam", activation_bytes=int(MIB), **sizes),  # type: ignore[arg-type]  # several kinds
            make_profile(device_class="gpu", activation_bytes=int(300 * MIB), **sizes),  # type: ignore[arg-type]  # likewise
        ],
        workers={
            "camera": {"device_class": "cam", "memory_bytes": 1000 * MIB},
            "box": {"device_class": "gpu", "memory_bytes": 509 * MIB, "speed": 20.0},
        },
        sources={"camera": {"worker": "camera", "rate_per_s": 2.0}},
    )
    for each in (instance, permuted(instance, 1), permuted(instance, 2)):
        plan = solve(each, method="milp").plan
        assert plan is not None
        prices = sensitivity(each, plan)
        assert list(prices.workers) == list(each.workers)
        assert prices.workers["camera"].more_memory_bytes is None
        assert prices.workers["box"].more_memory_bytes == MIB
        assert (prices.workers["box"].more_memory or 0.0) > 0.0
