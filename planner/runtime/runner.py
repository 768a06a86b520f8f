"""Run the blocks of a model on this device, one at a time or as a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.model.chain import StatePair
from planner.runtime.providers import Provider, find_provider
from planner.runtime.session import BlockSession, download, upload

Tensor = Any
"""A numpy array, or an onnxruntime ``OrtValue`` for a provider with its own memory."""


class ChainRunner:
    """Sessions of the blocks of a chain, by index; any subset of its L blocks may be loaded.

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
        self._sessions: dict[int, BlockSession] = {}

    @property
    def loaded(self) -> frozenset[int]:
        """Indices of the blocks that can run."""
        return frozenset(self._sessions)

    def has(self, index: int) -> bool:
        """Return whether a block can run."""
        return index in self._sessions

    def load(self, index: int, model: bytes | Path) -> None:
        """Create the session of block ``index``, replacing an existing one."""
        if not 0 <= index < len(self._cut_tensors) - 1:
            last = len(self._cut_tensors) - 2
            raise RuntimeSessionError("no such block", where="block", value=index, expected=f"0 to {last}")
        name = f"{self._name}, block {index}" if self._name else f"block {index}"
        self._sessions[index] = BlockSession(
            model, name=name, provider=self.provider, threads=self.threads, optimise=self._optimise
        )

    def unload(self, index: int) -> None:
        """Remove the session of block ``index``, and free its memory."""
        self._sessions.pop(index, None)

    def state(self, index: int) -> tuple[StatePair, ...]:
        """Return the state that a loaded block keeps from one run of a sequence to the next."""
        return self._session(index).state

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

    def send(self, cut: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Begin a stage: return the tensors of ``cut``, and no others, in the provider's memory."""
        names = self._cut_tensors[cut]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise RuntimeSessionError(Fault("tensor is missing", f"cut {cut}", expected=name) for name in missing)
        needed = {name: tensors[name] for name in names}
        return needed if self.provider.device is None else upload(needed, self.provider)

    def step(self, index: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a block of a stage on the tensors of cut ``index``, and return those of cut ``index + 1``."""
        session = self._session(index)
        made = session.run(tensors) if self.provider.device is None else session.run_on_device(tensors)
        for name in self._cut_tensors[index + 1]:
            if name not in made:
                made[name] = tensors[name]
        return made

    def fetch(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """End a stage: return the tensors in host memory."""
        return dict(tensors) if self.provider.device is None else download(tensors)

    def _session(self, index: int) -> BlockSession:
        if index not in self._sessions:
            loaded = ", ".join(map(str, sorted(self._sessions))) or "none"
            raise RuntimeSessionError("block is not loaded", where="block", value=index, expected=f"one of: {loaded}")
        return self._sessions[index]
