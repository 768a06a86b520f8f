"""What a step on an agent takes beyond onnxruntime alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import mean, median
from typing import Final

import numpy as np

from benchmarks.execution.pipeline import plan_of
from benchmarks.tokens.rig import PROMPT, Alone, decoder, gaps_s, instance_of, session_on_this_host
from planner.cli.output import print_table
from tests.execution.processes import agents

TURNS: Final = 7
TOKENS: Final = 60
BLOCKS: Final = (1, 4, 8)


def overhead() -> None:
    """Compare steps on one agent with those of onnxruntime alone, in turns."""
    rows = []
    for blocks in BLOCKS:
        model, profile = decoder(blocks)
        instance = instance_of(profile, {"a": 1.0})
        alone, ratios, steps_s, computing = Alone(model), [], [], []
        with session_on_this_host(instance, plan_of(instance, []), model) as session:
            (agent,) = agents()
            before_s = alone.generate(PROMPT, TOKENS)[1]
            for _ in range(TURNS):
                generation = session.source("s").generate(PROMPT, max_new=TOKENS)
                begin_s = processor_s(agent)
                list(generation)
                agent_s, begin_s = processor_s(agent) - begin_s, time.process_time()
                tokens, after_s = alone.generate(PROMPT, TOKENS)
                computing.append(1e3 / TOKENS * np.array([time.process_time() - begin_s, agent_s]))
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
                *(f"{own_ms:.2f} ms" for own_ms in np.median(computing, axis=0)),
            )
        )
    print_table(
        f"Mean step on an agent and by onnxruntime alone, in turns; median of {TURNS} (goal: overhead <= 15 % at "
        "5 ms). The processor time of a token, by the agent with all its threads, depends less on other programs",
        (">blocks", ">alone", ">on an agent", ">overhead", ">from .. to", ">computing alone", ">in the agent"),
        rows,
    )


def processor_s(process: int) -> float:
    """Return the processor time that a process has had, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
