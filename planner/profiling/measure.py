"""Measure the costs of a chain's blocks on this device.

1. Create the session of each block, and time the creation.
2. Run rounds. Each round runs the whole chain, timing every block, and random segments as separate stages. The order is
   drawn anew for each round, so that a temporary slowdown of the machine affects all segments alike.
3. Fit the stage overhead to some of the segments. The others are held out: the error of predicting them states the
   accuracy of the profile.
4. Run both blocks at each inner border in one session, and random longer segments, to measure the time saved by that.
   Some of these segments are held out as well. Blocks that keep state are not fused.
5. Measure the memory that each block holds, and its peak, on the CPU.
6. On another provider: measure how far the outputs of the whole model are from those on the CPU.
7. Of a decoder: run sequences of many lengths, for the times of prompts and of steps.
8. If asked: run batches of several sizes, after a check that samples in them come out as alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from math import isfinite
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from planner.errors import ProfileError, RuntimeSessionError, explain
from planner.model.chain import Chain
from planner.profiling.assemble import ChainCosts, assemble
from planner.profiling.environment import device_environment, thermal_environment, thermals, throttle_warnings
from planner.profiling.fusion import fit_savings
from planner.profiling.intervals import around
from planner.profiling.measure_batches import BatchSampler, check_sizes
from planner.profiling.measure_sequences import SequenceSampler, has_sequences
from planner.profiling.sampling import MIN_ROUNDS, Clock, ProfiledModel, Progress, Sampler, TimingSamples, cut_names
from planner.profiling.timing import MEASURED_COVERAGE, fit_costs, noise_warnings
from planner.profiling.types import WHOLE_ERROR, EstimateInterval, OperatingPoint, Profile
from planner.runtime.providers import FULL_PRECISION, Provider, onnxruntime_version
from planner.runtime.runner import ChainRunner
from planner.runtime.session import SESSION_CONFIG

ROUNDS: Final = 40
BUDGET_S: Final = 60.0
SEQUENCES_SHARE: Final = 0.5
"""Share of the time for runs of sequences, for a decoder."""
BATCHES_SHARE: Final = 0.4
"""Share of the time for batches, if they are asked for."""


def measure(
    chain_model: ProfiledModel,
    *,
    device_class: str,
    provider: str | Provider = "cpu",
    threads: int = 1,
    rounds: int = ROUNDS,
    budget_s: float = BUDGET_S,
    operating_points: Sequence[OperatingPoint] = (),
    power_mode: str | None = None,
    seed: int = 0,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    batches: Sequence[int] = (),
    progress: Progress | None = None,
) -> Profile:
    """Measure a chain on this device.

    Parameters
    ----------
    chain_model
        The chain and its block models.
    device_class
        Name for this combination of device, provider and number of threads.
    provider, threads
        As for :class:`planner.runtime.session.BlockSession`.
    rounds
        Maximum number of rounds.
    budget_s
        Time limit for the whole measurement in seconds. Sessions are created and three rounds run even if that takes
        longer.
    operating_points
        The chain's operating points, copied to the profile.
    power_mode
        Power mode of the device in the user's words. Overrides the mode reported by the system.
    seed
        Seed for the inputs, the segments and their order.
    inputs
        The model's inputs, by name; drawn by default.
    batches
        Sizes of batches to measure. If the model runs none, the profile has no times of them, and a warning says why.
    progress
        Callback that receives the progress.

    Returns
    -------
    Profile
        The measured profile. After Ctrl-C, if at least three rounds are complete, it holds what was measured until
        then, and ``environment["partial"]`` is true. ``environment["warnings"]`` lists signs of a noisy machine.

    Raises
    ------
    ProfileError
        If a number is out of range.
    RuntimeSessionError
        If onnxruntime is missing, lacks the provider or rejects a block.
    """
    if rounds < MIN_ROUNDS:
        raise ProfileError("too few rounds", where="rounds", value=rounds, expected=f"{MIN_ROUNDS} or more")
    if not budget_s > 0:
        raise ProfileError(
            "no time for a measurement", where="budget", value=budget_s, expected="a positive time, as in 60s"
        )
    chain = chain_model.chain
    decoder = has_sequences(chain)
    sizes = check_sizes(batches) if batches else ()
    share = SEQUENCES_SHARE if decoder else BATCHES_SHARE if sizes else 0.0
    clock = Clock(budget_s * (1 - share), progress)
    runner = ChainRunner(cut_names(chain), name=chain.name, provider=provider, threads=threads)
    rng = np.random.default_rng(seed)
    sampler = Sampler(chain_model, runner, rng, clock, inputs)
    before = thermals()
    partial = not _sample(sampler, rounds)
    if decoder and not partial:
        left = Clock(SEQUENCES_SHARE * budget_s, None)
        partial = not _sample_sequences(sampler.samples, SequenceSampler(chain_model, runner, rng, left, sampler.now_s))
    without_batches = f"no times of batches: {chain_model.single}" if sizes and chain_model.single else ""
    if sizes and not chain_model.single and not partial:
        left = Clock(BATCHES_SHARE * budget_s, None)
        without_batches = _sample_batches(
            sampler.samples, BatchSampler(chain_model, runner, rng, left, sampler.now_s, inputs=inputs), sizes
        )
    after = thermals()
    clock.finish()
    samples = sampler.samples
    fitted = fit_costs(samples.rounds)
    saving_s, fusion_error = fit_savings(len(chain), samples.fused_segments, samples.fused)
    memory = samples.memory if len(samples.memory) == len(chain) else []
    environment = device_environment() | {
        "provider": runner.provider.name,
        "precision": _precision(chain, runner.provider),
        "threads": threads,
        "onnxruntime": onnxruntime_version(),
        "session_config": dict(SESSION_CONFIG),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rounds": len(samples.rounds),
        "waiting_share": round(samples.waiting_share, 3),
        "partial": partial,
        "memory": "measured" if memory else "computed",
        **thermal_environment(before, after),
        "warnings": [
            *noise_warnings(samples.rounds, fitted.segment_error, samples.waiting_share),
            *throttle_warnings(before, after),
            *filter(None, [without_batches]),
        ],
    }
    if power_mode is not None:
        environment["power_mode"] = power_mode
    if samples.whole_error is not None and isfinite(samples.whole_error):
        environment[WHOLE_ERROR] = samples.whole_error
    if samples.placement is not None:
        environment["placement"] = samples.placement.shares
        environment["warnings"] += samples.placement.warnings(runner.provider)
    return assemble(
        chain_model,
        ChainCosts(
            fitted.mean_s.tolist(),
            std_s=fitted.std_s.tolist(),
            load_s=samples.load_s,
            weight_bytes=[block.held_bytes for block in memory],
            activation_bytes=[block.peak_bytes for block in memory],
            works=[chain_model.work(index) for index in range(len(chain))],
            stage_overhead_s=fitted.stage_overhead_s,
            fusion_saving_s=saving_s,
            segment_error=fitted.segment_error,
            fusion_error=fusion_error,
            interval=EstimateInterval(
                coverage=MEASURED_COVERAGE, total_s=around(float(fitted.mean_s.sum()), fitted.width)
            ),
            sequences=samples.sequences,
            batches=samples.batches,
        ),
        device_class=device_class,
        provenance="measured",
        environment=environment,
        operating_points=operating_points,
    )


def _sample(sampler: Sampler, rounds: int) -> bool:
    """Take all samples; return False if Ctrl-C cut them short, and re-raise it if there are too few rounds."""
    try:
        sampler.load()
        sampler.warm_clocks()
        sampler.run_rounds(rounds)
        sampler.try_fusing()
        sampler.measure_memory()
        sampler.measure_rounding()
    except KeyboardInterrupt:
        if len(sampler.samples.rounds) < MIN_ROUNDS:
            raise
        return False
    return True


def _sample_sequences(samples: TimingSamples, sampler: SequenceSampler) -> bool:
    """Measure the runs of sequences; return False if Ctrl-C cut that short."""
    try:
        samples.sequences = sampler.measure([block.peak_bytes for block in samples.memory])
    except KeyboardInterrupt:
        return False
    return True


def _sample_batches(samples: TimingSamples, sampler: BatchSampler, sizes: Sequence[int]) -> str:
    """Measure batches; return the reason why there are none, or an empty text."""
    try:
        samples.batches = sampler.measure(sizes)
    except KeyboardInterrupt:
        return "no times of batches: interrupted"
    except RuntimeSessionError as error:
        return f"no times of batches: {explain(error)}"
    return ""


def _precision(chain: Chain, provider: Provider) -> str:
    """Return the dtype of most bytes between blocks, or the precision in which the provider computes float32."""
    inner = chain.cuts[1:-1] or chain.cuts[:1]
    sizes: Counter[str] = Counter()
    for cut in inner:
        for tensor in cut.tensors:
            sizes[tensor.dtype] += tensor.bytes
    most = max(sizes, key=lambda dtype: sizes[dtype], default="unknown")
    return provider.precision if most == FULL_PRECISION else most
