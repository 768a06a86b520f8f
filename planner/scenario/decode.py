"""Sequences of tokens in a scenario: what a source with ``decode:`` generates."""

from __future__ import annotations

from functools import cached_property
from math import isinf
from typing import Annotated, Final, Literal

from pydantic import Field

from planner.profiling.sequences import Run
from planner.scenario.quantities import Duration, Entry, Factor, Tokens

MAX_RESTARTS: Final = 5
"""A sequence fails after it has been started again this often without a new token."""


class DecodeSpec(Entry):
    """Sequences of tokens: a prompt, then one token after the other, each of which is fed back.

    A sample of the source is a whole sequence, so its rate counts sequences.
    """

    prompt: Tokens
    """Tokens of a typical prompt; the mean, where prompts differ."""
    max_new: Tokens
    """Number of tokens to generate for a prompt, where no stop token ends it earlier."""
    next: Literal["argmax", "sample"] = "argmax"
    """``argmax``: the likeliest token comes next; ``sample``: one is drawn."""
    temperature: Factor = 1.0
    """For ``next: sample``: temperature of the distribution from which a token is drawn."""
    loop: Literal["auto", "home", "last"] = "auto"
    """Where a token becomes the input of the next step: at the source's worker (``home``), or at that of the last block
    (``last``), which sends the step to the first block's worker and the token alone home. By default the plan says,
    whichever is faster; policies without a plan do it at home."""
    stop: tuple[Annotated[int, Field(ge=0, le=10**9, strict=True)], ...] = ()
    """Tokens that end a sequence."""
    chunk: Tokens | None = None
    """Largest number of tokens of a prompt in one run, so that more urgent work gets its turn in between. By default a
    prompt is one run."""
    concurrent: Annotated[int, Field(ge=1, le=64, strict=True)] = 4
    """Largest number of sequences at a time, for whose state workers keep room; others wait at the source."""
    max_ttft_s: Duration | None = Field(default=None, alias="max_ttft")
    """Bound on the mean time from the arrival of a prompt to its first token."""
    max_tpot_s: Duration | None = Field(default=None, alias="max_tpot")
    """Bound on the mean time from one token to the next."""

    ttft_weight: Factor = 1.0
    """What the time to the first token counts in the objective: the delay of a sequence is that time, weighted by this,
    and the time after it, weighted by ``tpot_weight``. Solvers minimise the delay itself, and rank plans by these."""
    tpot_weight: Factor = 1.0
    """What the time of the tokens after the first one counts in the objective."""

    @property
    def weighed(self) -> bool:
        """Whether the parts of the delay count differently."""
        return (self.ttft_weight, self.tpot_weight) != (1.0, 1.0)

    def counted_s(self, delay_s: float, ttft_s: float) -> float:
        """Return what the delay of a sequence counts, given the time to its first token, in seconds."""
        if not self.weighed or isinf(delay_s):
            return delay_s
        return self.ttft_weight * ttft_s + self.tpot_weight * (delay_s - ttft_s)

    @property
    def context(self) -> int:
        """Tokens of a whole sequence."""
        return self.prompt + self.max_new

    @property
    def bounded(self) -> bool:
        """Whether there is a bound on the times of tokens."""
        return self.max_ttft_s is not None or self.max_tpot_s is not None

    @property
    def drawn_temperature(self) -> float:
        """Temperature of the distribution from which tokens are drawn; 0 where the likeliest is taken."""
        return self.temperature if self.next == "sample" else 0.0

    @cached_property
    def prompt_runs(self) -> tuple[Run, ...]:
        """The runs of the prompt, after the last of which the first token is known."""
        size = self.chunk or self.prompt
        return tuple(Run(min(size, self.prompt - past), past) for past in range(0, self.prompt, size))

    @cached_property
    def steps(self) -> tuple[Run, ...]:
        """The runs of one token each that follow; the last token is not fed back."""
        return tuple(Run(1, self.prompt + done) for done in range(self.max_new - 1))

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs of a sequence, in order."""
        return (*self.prompt_runs, *self.steps)
