"""Small instances built in code, for tests of whatever starts from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, permutations
from typing import Any

import numpy as np

from planner.profiling.batches import BatchCosts
from planner.profiling.sequences import BlockRuns, CutRuns, RunCurve, SequenceCosts
from planner.profiling.types import BlockCost, ExitPoint, ModelReference, OperatingPoint, Profile
from planner.scenario.instance import Hop, Instance, NetworkPath
from planner.scenario.types import (
    ModelSpec,
    NetworkSpec,
    ObjectiveSpec,
    PolicySpec,
    PowerSpec,
    ScenarioSpec,
    SourceSpec,
    WorkerSpec,
)

MIB = float(2**20)


def make_profile(
    name: str = "m",
    *,
    block_s: Sequence[float] = (0.01, 0.01),
    cut_bytes: Sequence[int] | None = None,
    device_class: str = "reference",
    weight_bytes: Sequence[int] | int = 1_000_000,
    activation_bytes: Sequence[int] | int = 500_000,
    parameters: int | None = None,
    std_s: float = 0.0,
    batches: BatchCosts | None = None,
    stage_overhead_s: float = 0.0,
    exits: Sequence[ExitPoint] = (),
    operating_points: Sequence[OperatingPoint] = (),
) -> Profile:
    """A profile of ``len(block_s)`` blocks."""
    length = len(block_s)
    weights = [weight_bytes] * length if isinstance(weight_bytes, int) else weight_bytes
    activations = [activation_bytes] * length if isinstance(activation_bytes, int) else activation_bytes
    return Profile(
        model=ModelReference(name=name, sha256="0" * 64),
        chain_sha256=f"{name}-{length}",
        device_class=device_class,
        provenance="measured",
        environment={},
        stage_overhead_s=stage_overhead_s,
        fusion_saving_s=(0.0,) * (length - 1),
        blocks=tuple(
            BlockCost(
                name=f"b{index}",
                mean_s=mean_s,
                std_s=std_s,
                weight_bytes=weights[index],
                activation_bytes=activations[index],
                flop=1e6,
                parameters=weights[index] // 4 if parameters is None else parameters,
                load_s=0.01,
            )
            for index, mean_s in enumerate(block_s)
        ),
        cut_bytes=tuple(cut_bytes if cut_bytes is not None else [100_000] * length + [4_000]),
        exits=tuple(exits),
        operating_points=tuple(operating_points),
        batches=batches,
    )


def linear_batches(blocks: int, fixed: float, most: int = 8) -> BatchCosts:
    """Times of batches of which a share is for the batch, and the rest for each sample."""
    sizes = [2**power for power in range(most.bit_length())]
    ratios = tuple(fixed + (1 - fixed) * size for size in sizes)
    return BatchCosts(sizes=tuple(sizes), relative=(ratios,) * blocks)


def with_sequences(
    profile: Profile,
    *,
    prompt: RunCurve | None = None,
    step: RunCurve | None = None,
    state_bytes: float = 1000.0,
    max_context: int | None = None,
) -> Profile:
    """The same profile of a decoder, all of whose blocks have these curves."""
    block = BlockRuns(
        prompt=prompt or RunCurve(fixed_s=1e-3, token_s=2e-4, pair_s=1e-7),
        step=step or RunCurve(fixed_s=2e-3, context_s=1e-6),
        state_fixed_bytes=0.0,
        state_token_bytes=state_bytes,
        peak_token_bytes=100.0,
    )
    cuts = [CutRuns(fixed_bytes=16.0, token_bytes=500.0, context_bytes=8.0)] * len(profile.cut_bytes)
    costs = SequenceCosts(
        blocks=(block,) * len(profile.blocks),
        cuts=tuple(cuts),
        measured_context=512,
        max_context=max_context,
        vocabulary=1000,
    )
    return profile.model_copy(update={"sequences": costs})


def with_savings(instance: Instance, share: float) -> Instance:
    """Return the instance whose blocks take less by this share when they are joined to the block before."""
    profiles = {
        model: {
            name: profile.model_copy(
                update={"fusion_saving_s": tuple(share * block.mean_s for block in profile.blocks[1:])}
            )
            for name, profile in by_class.items()
        }
        for model, by_class in instance.profiles.items()
    }
    return instance.model_copy(update={"profiles": profiles})


def make_instance(
    *,
    profiles: Mapping[str, Profile] | Sequence[Profile] | None = None,
    workers: Mapping[str, Mapping[str, Any] | float] | None = None,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    networks: Mapping[str, NetworkSpec] | None = None,
    objective: ObjectiveSpec | None = None,
    policy: PolicySpec | None = None,
) -> Instance:
    """An instance; by default one source at the slower of two workers on a shared network.

    A worker is its speed or the keys of a :class:`WorkerSpec`; all are of the profiles' device class. Transfers need a
    direct network.
    """
    found = list(profiles.values() if isinstance(profiles, Mapping) else profiles or [make_profile()])
    specs = {
        name: WorkerSpec(
            **{
                "device_class": found[0].device_class,
                "memory_bytes": 4096 * MIB,
                **({"speed": value} if isinstance(value, float | int) else value),
            }
        )
        for name, value in (workers or {"slow": 1.0, "fast": 4.0}).items()
    }
    wired = (
        {"wifi": NetworkSpec(kind="shared", members=tuple(specs), bandwidth_bytes_per_s=1e7, latency_s=0.001)}
        if networks is None
        else dict(networks)
    )
    models = [profile.model.name for profile in found]
    wanted = sources or {"camera": {"rate_per_s": 5.0}}
    scenario = ScenarioSpec(
        models={model: ModelSpec(profile=model) for model in dict.fromkeys(models)},
        workers=specs,
        networks=wired,
        sources={
            name: SourceSpec(**{"worker": next(iter(specs)), "models": models[:1], **keys})
            for name, keys in wanted.items()
        },
        objective=objective or ObjectiveSpec(),
        policy=policy or PolicySpec(),
    )
    by_class: dict[str, dict[str, Profile]] = {}
    for profile in found:
        by_class.setdefault(profile.model.name, {})[profile.device_class] = profile
    return Instance(scenario=scenario, profiles=by_class, paths=_direct_paths(specs, wired))


def _direct_paths(
    workers: Mapping[str, WorkerSpec], networks: Mapping[str, NetworkSpec]
) -> dict[str, dict[str, NetworkPath]]:
    joining: dict[tuple[str, ...], str] = {}
    for name, network in networks.items():
        linked = chain.from_iterable(permutations(link) for link in network.links)
        for pair in chain(linked, permutations(network.members, 2)):
            joining.setdefault(pair, name)
    paths: dict[str, dict[str, NetworkPath]] = {}
    for sender, receiver in permutations(workers, 2):
        if (sender, receiver) not in joining:
            continue
        name = joining[sender, receiver]
        network = networks[name]
        hop = Hop(
            sender=sender,
            receiver=receiver,
            resource=name if network.kind == "shared" else f"{name}:{sender}>{receiver}",
            bytes_per_s=network.bandwidth_bytes_per_s / (2 if network.relay == "access-point" else 1),
            latency_s=network.latency_s,
        )
        paths.setdefault(sender, {})[receiver] = NetworkPath(hops=(hop,))
    return paths


def random_instance(
    seed: int,
    *,
    sources: int = 2,
    workers: int = 3,
    blocks: int = 4,
    load: float = 0.4,
    tight_memory: bool = False,
    links: bool = True,
    goal: str = "delay",
    capped: bool = False,
) -> Instance:
    """A random instance: worker speeds 1, 2, 4, 10, priorities 1, 2, 5, 10, a link a pair or one shared medium.

    ``load`` scales the arrival rates to that share of the summed speeds; ``capped`` limits the use of some workers. For
    the goal ``energy`` each worker has a power.
    """
    of_workers = np.random.default_rng(seed + 1)
    idle_w, more_w = of_workers.uniform(0.5, 5.0, size=workers), of_workers.uniform(1.0, 20.0, size=workers)
    usable = of_workers.choice([0.25, 0.5, 0.8, 1.0], size=workers) if capped else np.ones(workers)
    random = np.random.default_rng(seed)
    names = [f"w{index}" for index in range(workers)]
    speeds = random.choice([1.0, 2.0, 4.0, 10.0], size=workers)
    found = []
    for index in range(sources):
        block_s = random.uniform(0.5, 1.5, size=blocks) * 0.08 / blocks
        cuts = random.uniform(0.2, 1.0, size=blocks + 1) * 800e3 * np.linspace(1.0, 0.1, blocks + 1)
        cuts[0], cuts[-1] = 600e3, 4e3
        weights = random.uniform(0.5, 1.5, size=blocks) * 2e6
        found.append(
            make_profile(
                f"m{index}",
                block_s=block_s.tolist(),
                cut_bytes=cuts.astype(int).tolist(),
                weight_bytes=weights.astype(int).tolist(),
                stage_overhead_s=2e-4,
            )
        )
    work = sum(block.mean_s for profile in found for block in profile.blocks)
    rate = load * float(speeds.sum()) / work
    memory = blocks * 2e6 * sources * 0.7 + 0.5e6 if tight_memory else 1e9
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    if links:
        networks = {
            f"link-{a}-{b}": NetworkSpec(
                kind="point-to-point",
                links=((a, b),),
                bandwidth_bytes_per_s=float(random.uniform(5e6, 60e6)),
                latency_s=float(random.uniform(0.5e-3, 3e-3)),
            )
            for a, b in pairs
        }
    else:
        networks = {
            "wifi": NetworkSpec(kind="shared", members=tuple(names), bandwidth_bytes_per_s=60e6, latency_s=0.002)
        }
    return make_instance(
        profiles=found,
        workers={
            name: {
                "speed": float(speeds[index]),
                "memory_bytes": memory,
                "base_memory_bytes": 0.0,
                "max_utilisation": float(usable[index]),
                "power": PowerSpec(idle_w=idle_w[index], busy_w=idle_w[index] + more_w[index])
                if goal == "energy"
                else None,
            }
            for index, name in enumerate(names)
        },
        sources={
            f"s{index}": {
                "worker": names[int(random.integers(0, workers))],
                "models": [f"m{index}"],
                "rate_per_s": rate,
                "samples": int(random.integers(5, 30)),
                "priority": float(random.choice([1.0, 2.0, 5.0, 10.0])),
            }
            for index in range(sources)
        },
        networks=networks,
        objective=ObjectiveSpec(goal=goal),  # type: ignore[arg-type]  # checked by pydantic
    )
