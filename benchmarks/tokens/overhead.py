"""What a step on an agent takes beyond onnxruntime alone, and the memory that sequences take."""

from __future__ import annotations

from statistics import mean, median
from typing import Final

from benchmarks.execution.pipeline import plan_of
from benchmarks.tokens.rig import PROMPT, Alone, decoder, gaps_s, instance_of, session_on_this_host
from planner.cli.output import print_table

TURNS: Final = 7
TOKENS: Final = 60
BLOCKS: Final = (1, 4, 8)


def overhead() -> None:
    """Compare steps on one agent with those of onnxruntime alone, in turns."""
    rows = []
    for blocks in BLOCKS:
        model, profile = decoder(blocks)
        instance = instance_of(profile, {"a": 1.0})
        alone, ratios, steps_s = Alone(model), [], []
        with session_on_this_host(instance, plan_of(instance, []), model) as session:
            before_s = alone.generate(PROMPT, TOKENS)[1]
            for _ in range(TURNS):
                generation = session.source("s").generate(PROMPT, max_new=TOKENS)
                list(generation)
                tokens, after_s = alone.generate(PROMPT, TOKENS)
                if generation.tokens != tokens:
                    raise AssertionError(f"{generation.tokens} are not {tokens}")
                steps_s.append(mean(gaps_s(generation)))
                ratios.append(steps_s[-1] / ((before_s + after_s) / 2))
                before_s = after_s
        rows.append(
            (
                str(len(model.chain)),
                f"{before_s * 1e3:.2f} ms",
                f"{median(steps_s) * 1e3:.2f} ms",
                f"{median(ratios) - 1:+.1%}",
                f"{min(ratios) - 1:+.1%} .. {max(ratios) - 1:+.1%}",
            )
        )
    print_table(
        f"Mean step on an agent and by onnxruntime alone, in turns; median of {TURNS} (goal: overhead <= 15 % at 5 ms)",
        (">blocks", ">alone", ">on an agent", ">overhead", ">from .. to"),
        rows,
    )
