"""Run the blocks of a model on this device, one at a time, as a stage, or joined to one session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import StatePair
from planner.runtime.providers import Provider, find_provider
from planner.runtime.session import BlockSession, download, upload
from planner.runtime.state import Kept, KeptStates

Tensor = Any
"""A numpy array, or an onnxruntime ``OrtValue`` for a provider with its own memory."""


Span: TypeAlias = tuple[int, int]
"""First and last block of a session, both inclusive."""


class ChainRunner:
    """Sessions of the blocks of a chain, by index; any subset of its L blocks may be loaded.

    A session may also run several consecutive blocks, joined to one model.

    Parameters
    ----------
    cut_tensors
        Names of the tensors at each cut; length L + 1.
    name
        Name of the model in messages.
    provider, threads, optimise
        As for :class:`BlockSession`, for all blocks.
    """

    def __init__(
        self,
        cut_tensors: Sequence[Sequence[str]],
        *,
        name: str = "",
        provider: str | Provider = "cpu",
        threads: int = 1,
        optimise: bool = True,
    ) -> None:
        self.provider = find_provider(provider) if isinstance(provider, str) else provider
        self._cut_tensors = tuple(tuple(names) for names in cut_tensors)
        self._name = name
        self.threads = threads
        self._optimise = optimise
        self._sessions: dict[Span, BlockSession] = {}
        self._kept: dict[int, KeptStates] = {}
        """State of sequences by block: blocks that keep any are not joined."""

    @property
    def loaded(self) -> frozenset[Span]:
        """First and last block of each session that can run."""
        return frozenset(self._sessions)

    def has(self, index: int, last: int | None = None) -> bool:
        """Return whether a block can run, or the session of the blocks up to ``last``."""
        return (index, index if last is None else last) in self._sessions

    def load(self, index: int, model: bytes | Path, last: int | None = None) -> None:
        """Create the session of block ``index``, or of the blocks up to ``last``, replacing an existing one."""
        span = index, index if last is None else last
        for block in span:
            if not 0 <= block < len(self._cut_tensors) - 1:
                most = len(self._cut_tensors) - 2
                raise RuntimeSessionError("no such block", where="block", value=block, expected=f"0 to {most}")
        blocks = f"block {index}" if span[1] == index else f"blocks {index} to {span[1]}"
        name = f"{self._name}, {blocks}" if self._name else blocks
        self._sessions[span] = BlockSession(
            model,
            name=name,
            provider=self.provider,
            threads=self.threads,
            optimise=self._optimise,
            kept=self._states_at(index) if span[1] == index else None,
        )

    def unload(self, index: int, last: int | None = None) -> None:
        """Remove the session of block ``index``, or of the blocks up to ``last``, and free its memory."""
        self._sessions.pop((index, index if last is None else last), None)
        if last in {None, index}:
            self._kept.pop(index, None)

    def state(self, index: int) -> tuple[StatePair, ...]:
        """Return the state that a loaded block keeps from one run of a sequence to the next."""
        return self._session(index).state

    def give_state(self, index: int, number: int) -> tuple[int, dict[str, NDArray[Any]]] | None:
        """Return the state of a sequence at a block, and keep it no longer; None if it is not here.

        Returns
        -------
        tuple
            Number of the runs that have led to it, and its tensors in host memory, by the names of the inputs.
        """
        kept = self._states_at(index).take(number)
        if kept is None:
            return None
        on_device = kept.placed and self.provider.device is not None
        return kept.runs, download(kept.state) if on_device else dict(kept.state)

    def take_state(self, index: int, number: int, runs: int, state: Mapping[str, NDArray[Any]]) -> None:
        """Keep the state of a sequence at a block that need not be loaded yet, as :meth:`give_state` returned it.

        A run that continues the sequence checks that it is the block's.
        """
        self._states_at(index).put(number, Kept(runs, dict(state), placed=False))

    def forget_state(self, number: int) -> None:
        """Drop the state of a sequence at all blocks."""
        for kept in list(self._kept.values()):
            kept.take(number)

    def _states_at(self, index: int) -> KeptStates:
        return self._kept.setdefault(index, KeptStates())

    def run_block(self, index: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a block.

        Parameters
        ----------
        index
            Index of the block, which must be loaded.
        tensors
            Tensors of cut ``index``, by name.

        Returns
        -------
        dict
            Tensors of cut ``index + 1``: those that the block produces, and those that only pass by. They include the
            result of an exit that the block computes; the next block drops it.

        Raises
        ------
        RuntimeSessionError
            If the block is not loaded, a tensor is missing or invalid, or onnxruntime fails.
        """
        return self.run_segment(index, index, tensors)

    def run_segment(self, first: int, last: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run blocks ``first`` to ``last``, inclusive, as one stage; tensors stay on the device between them.

        Takes the tensors of cut ``first`` and returns those of cut ``last + 1``; raises the errors of
        :meth:`run_block`. Callers that check for other work between blocks use :meth:`send`, :meth:`step` and
        :meth:`fetch` instead.
        """
        current = self.send(first, tensors)
        for index in range(first, last + 1):
            current = self.step(index, current)
        return self.fetch(current)

    def send(self, cut: int, tensors: Mapping[str, NDArray[Any]], last: int | None = None) -> dict[str, Tensor]:
        """Begin a stage: return the tensors of ``cut``, and no others, in the provider's memory.

        A session that records its runs, of block ``cut`` or of the blocks up to ``last``, copies them there itself.
        """
        names = self._cut_tensors[cut]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise RuntimeSessionError(Fault("tensor is missing", f"cut {cut}", expected=name) for name in missing)
        needed = {name: tensors[name] for name in names}
        session = self._sessions.get((cut, cut if last is None else last))
        if self.provider.device is None or (session is not None and session.records):
            return needed
        return upload(needed, self.provider)

    def step(self, index: int, tensors: Mapping[str, Tensor], last: int | None = None) -> dict[str, Tensor]:
        """Run a block of a stage on the tensors of cut ``index``, and return those of cut ``index + 1``.

        With ``last`` it is the session of the blocks up to there, and the cut the one behind them.
        """
        last = index if last is None else last
        session = self._session(index, last)
        made = session.run(tensors) if self.provider.device is None else session.run_on_device(tensors)
        for name in self._cut_tensors[last + 1]:
            if name not in made:
                made[name] = tensors[name]
        return made

    def fetch(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """End a stage: return the tensors in host memory."""
        return dict(tensors) if self.provider.device is None else download(tensors)

    def _session(self, index: int, last: int | None = None) -> BlockSession:
        span = index, index if last is None else last
        if span not in self._sessions:
            loaded = ", ".join(map(_text, sorted(self._sessions))) or "none"
            value = index if last in {None, index} else _text(span)
            raise RuntimeSessionError("block is not loaded", where="block", value=value, expected=f"one of: {loaded}")
        return self._sessions[span]


def _text(span: Span) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]} to {span[1]}"
