"""Measure what the blocks of a chain cost on this device.

1. The session of each block is made, and that is timed.
2. Rounds. Each runs the whole chain, timing every block in it, and random segments as stages of their own, in an order
   drawn anew, so that a machine that slows down for a while disturbs all of them alike.
3. Some of the segments fit the overhead of a stage. The others are held out: the error of predicting them is the
   profile's own account of how far it may be believed.
4. Each inner border is tried with both its blocks in one session: what fusing them would save.
5. Each block's memory peak is measured, on the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Final

import numpy as np

from planner.errors import ProfileError
from planner.model.chain import Chain
from planner.profile.assemble import ChainCosts, assemble
from planner.profile.environment import device_environment, thermal_environment, thermals, throttle_warnings
from planner.profile.sampling import FEWEST_ROUNDS, ChainModel, Clock, Progress, Sampler, cut_names
from planner.profile.timing import costs, noise_warnings
from planner.profile.types import OperatingPoint, Profile
from planner.runtime.providers import Provider, onnxruntime_version
from planner.runtime.runner import ChainRunner

ROUNDS: Final = 40
BUDGET_S: Final = 60.0


def measure(
    chain_model: ChainModel,
    *,
    device_class: str,
    provider: str | Provider = "cpu",
    threads: int = 1,
    rounds: int = ROUNDS,
    budget_s: float = BUDGET_S,
    operating_points: Sequence[OperatingPoint] = (),
    power_mode: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Profile:
    """Measure a chain on this device.

    Parameters
    ----------
    chain_model
        The chain and its block models.
    device_class
        What to call this device, provider and number of threads.
    provider, threads
        As for :class:`planner.runtime.session.BlockSession`.
    rounds
        How many rounds at most.
    budget_s
        Time for the whole in seconds. Sessions are made and three rounds run even if that takes longer.
    operating_points
        The chain's operating points; they are passed on.
    power_mode
        The device's power mode in the user's words, where the system does not tell.
    seed
        Draws inputs, segments and their order.
    progress
        Told how far it is.

    Returns
    -------
    Profile
        After Ctrl-C, once three rounds have run, a profile of what was measured by then: ``environment`` says
        ``partial``. Doubts about the machine stand in ``environment["warnings"]``.

    Raises
    ------
    ProfileError
        A number is out of range.
    RuntimeSessionError
        onnxruntime is absent, lacks the provider, or refuses a block.
    """
    if rounds < FEWEST_ROUNDS:
        raise ProfileError("too few rounds", where="rounds", value=rounds, expected=f"{FEWEST_ROUNDS} or more")
    if not budget_s > 0:
        raise ProfileError("no time to measure", where="budget", value=budget_s, expected="a positive time, as in 60s")
    chain = chain_model.chain
    clock = Clock(budget_s, progress)
    runner = ChainRunner(cut_names(chain), name=chain.name, provider=provider, threads=threads)
    sampler = Sampler(chain_model, runner, np.random.default_rng(seed), clock)
    before = thermals()
    partial = not _sample(sampler, rounds)
    after = thermals()
    clock.finish()
    samples = sampler.samples
    found = costs(samples.rounds)
    memory_measured = len(samples.peak_bytes) == len(chain)
    environment = device_environment() | {
        "provider": runner.provider.name,
        "precision": "float16" if runner.provider.name.endswith("-fp16") else _precision(chain),
        "threads": threads,
        "onnxruntime": onnxruntime_version(),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rounds": len(samples.rounds),
        "waiting_share": round(samples.waiting_share, 3),
        "partial": partial,
        "memory": "measured" if memory_measured else "computed",
        **thermal_environment(before, after),
        "warnings": [
            *noise_warnings(samples.rounds, found.segment_error, samples.waiting_share),
            *throttle_warnings(before, after),
        ],
    }
    if power_mode is not None:
        environment["power_mode"] = power_mode
    return assemble(
        chain,
        ChainCosts(
            found.mean_s.tolist(),
            std_s=found.std_s.tolist(),
            load_s=samples.load_s,
            activation_bytes=samples.peak_bytes if memory_measured else (),
            stage_overhead_s=found.stage_overhead_s,
            fusion_saving_s=samples.fusion_saving_s if len(samples.fusion_saving_s) == len(chain) - 1 else (),
            segment_error=found.segment_error,
        ),
        device_class=device_class,
        provenance="measured",
        environment=environment,
        operating_points=operating_points,
    )


def _sample(sampler: Sampler, rounds: int) -> bool:
    """Measure all; give False where Ctrl-C ended it, and let that pass where too little was measured to be of use."""
    try:
        sampler.load()
        sampler.run_rounds(rounds)
        sampler.try_fusing()
        sampler.measure_memory()
    except KeyboardInterrupt:
        if len(sampler.samples.rounds) < FEWEST_ROUNDS:
            raise
        return False
    return True


def _precision(chain: Chain) -> str:
    """Give the dtype that most bytes between the blocks have."""
    inner = chain.cuts[1:-1] or chain.cuts[:1]
    sizes: Counter[str] = Counter()
    for cut in inner:
        for tensor in cut.tensors:
            sizes[tensor.dtype] += tensor.bytes
    return max(sizes, key=lambda dtype: sizes[dtype], default="unknown")
