"""Memory that an agent takes for sequences, relative to their state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from benchmarks.execution.pipeline import plan_of
from benchmarks.tokens.rig import decoder, instance_of, session_on_this_host
from planner.cli.output import print_table
from planner.execution.session.generation import Generation
from planner.execution.session.source import Result, SourceHandle
from planner.execution.wire.frames import Tensors
from planner.execution.wire.messages import Further
from planner.model.load import ChainModel
from planner.policy.types import Progress
from planner.runtime.state import MAX_SEQUENCES
from tests.execution.processes import agents

BLOCKS: Final = 4
COUNTS: Final = (0, 8, 16, 32, MAX_SEQUENCES, 2 * MAX_SEQUENCES)
PROMPT: Final = 200
STEPS: Final = 24


class Endless:
    """A source whose workers are not told how far a sequence is, so that they keep its state as if it went on."""

    def __init__(self, source: SourceHandle) -> None:
        self._source = source
        self.name, self.inputs, self.outputs = source.name, source.inputs, source.outputs
        self.next_sequence = source.next_sequence
        self.give_up_sequence = source.give_up_sequence

    def submit(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        block: bool = True,
        further: Further | None = None,
        progress: Progress | None = None,  # noqa: ARG002 - what is left out
        on_tokens: Callable[[Tensors], None] | None = None,
    ) -> Future[Result]:
        """Submit a run, and steps that follow it."""
        return self._source.submit(inputs, block=block, further=further, on_tokens=on_tokens)


def memory() -> None:
    """Print the resident memory of an agent by the number of sequences under way."""
    model, profile = decoder(BLOCKS)
    instance = instance_of(profile, {"a": 1.0})
    tokens = list(range(5, 5 + PROMPT))
    state = state_bytes(model, PROMPT + STEPS - 1)
    rows, first_bytes, done = [], 0, 0
    with session_on_this_host(instance, plan_of(instance, []), model) as session:
        (process,) = agents()
        list(session.source("s").generate(tokens, max_new=STEPS))  # scratch memory of the largest run
        for count in COUNTS:
            for _ in range(count - done):
                list(Generation(Endless(session.source("s")), tokens, STEPS))
            done = count
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
