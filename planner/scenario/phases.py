"""Phases of a sample: runs of the chain that are alike, so that their mean costs tell what they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from planner.profiling.sequences import Run
from planner.profiling.types import Profile
from planner.scenario.decode import DecodeSpec


@dataclass(frozen=True)
class Phase:
    """Runs of the chain, one after the other.

    Parameters
    ----------
    name
        ``sample`` for the only run of a sample, and ``prompt`` and ``step`` for those of a sequence.
    runs
        Their tokens; none for the only run of a sample, whose size is that of the profile.
    fed_back
        Whether the worker of the last block may begin each of them, in place of the source's worker.
    """

    name: str
    runs: tuple[Run, ...] = ()
    fed_back: bool = False

    @property
    def count(self) -> int:
        """Number of runs."""
        return len(self.runs) or 1


SAMPLE: Final = Phase("sample")


def phases(decode: DecodeSpec | None) -> tuple[Phase, ...]:
    """Return the phases of a source's samples, in order; those of a sequence are its prompt and its steps."""
    if decode is None:
        return (SAMPLE,)
    steps = (Phase("step", decode.steps, decode.loop != "home"),) if decode.steps else ()
    return (Phase("prompt", decode.prompt_runs), *steps)


def block_memory(
    profile: Profile, decoding: Sequence[DecodeSpec], batch: int = 1
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the memory that each block holds, and its peak of tensors; bytes.

    These are those with the sequences of some sources, and with a batch of so many samples.
    """
    held = [block.weight_bytes for block in profile.blocks]
    peak = [batch * block.activation_bytes for block in profile.blocks]
    if profile.sequences is not None and decoding:
        for index, runs in enumerate(profile.sequences.blocks):
            held[index] += sum(it.concurrent * runs.state_bytes(it.context) for it in decoding)
            peak[index] += max(
                runs.more_peak_bytes(min(it.chunk or it.prompt, it.prompt), it.context) for it in decoding
            )
    return tuple(held), tuple(peak)
