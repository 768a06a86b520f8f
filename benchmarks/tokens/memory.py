"""Memory that an agent takes for sequences, relative to their state."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Final

from benchmarks.execution.pipeline import plan_of
from benchmarks.tokens.rig import decoder, instance_of, session_on_this_host
from planner.cli.output import print_table
from planner.execution.session.generation import Generation
from planner.model.load import ChainModel
from planner.runtime.state import MAX_SEQUENCES
from tests.execution.processes import agents

BLOCKS: Final = 4
COUNTS: Final = (0, 8, 16, 32, MAX_SEQUENCES, 2 * MAX_SEQUENCES)
PROMPT: Final = 200
STEPS: Final = 24
DRAWN: Final = 1e-6
"""Drawn tokens are chosen by this program, one by one, so that no step runs ahead."""


def memory() -> None:
    """Print the resident memory of an agent by the number of sequences under way."""
    model, profile = decoder(BLOCKS)
    instance = instance_of(profile, {"a": 1.0})
    tokens = list(range(5, 5 + PROMPT))
    state = state_bytes(model, PROMPT + STEPS - 1)
    rows, first_bytes = [], 0
    open_: list[Generation] = []
    with session_on_this_host(instance, plan_of(instance, []), model) as session:
        (process,) = agents()
        list(session.source("s").generate(tokens, max_new=STEPS))  # scratch memory of the largest run
        for count in COUNTS:
            for _ in range(count - len(open_)):
                open_.append(session.source("s").generate(tokens, max_new=2 * STEPS, temperature=DRAWN))
                list(islice(open_[-1], STEPS))
            resident = resident_bytes(process)
            first_bytes = first_bytes or resident
            kept = min(count, MAX_SEQUENCES) * state
            more = resident - first_bytes
            ratio = f"{more / kept:.2f}" if kept else "-"
            rows.append((str(count), f"{resident / 1e6:.1f} MB", f"{more / 1e6:.1f} MB", f"{kept / 1e6:.1f} MB", ratio))
    print_table(
        f"Resident memory of an agent, sequences of {PROMPT + STEPS} tokens, all under way, of which a block keeps "
        f"{MAX_SEQUENCES} (goal: grows by the state alone)",
        (">sequences", ">resident", ">more", ">state", ">ratio"),
        rows,
    )


def state_bytes(model: ChainModel, tokens: int) -> int:
    """Return the size of the state of a sequence after that many tokens."""
    (past,) = {pair.before.shape[2] for pairs in model.state.values() for pair in pairs}
    return sum(pair.before.bytes // past * tokens for pairs in model.state.values() for pair in pairs)


def resident_bytes(process: int) -> int:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])
