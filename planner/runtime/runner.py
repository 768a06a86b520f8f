"""The blocks of one model on this device, run one at a time or as a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.runtime.providers import Provider, find_provider
from planner.runtime.session import BlockSession, DeviceTensor, download, upload


class ChainRunner:
    """Sessions of the blocks of one chain, by index; any subset of its L blocks may be loaded.

    Parameters
    ----------
    cut_tensors
        Names of the tensors at each cut; length L + 1.
    provider, threads, optimise
        As for :class:`BlockSession`; the same for all blocks.
    """

    def __init__(
        self,
        cut_tensors: Sequence[Sequence[str]],
        *,
        provider: str | Provider = "cpu",
        threads: int = 1,
        optimise: bool = True,
    ) -> None:
        self.provider = find_provider(provider) if isinstance(provider, str) else provider
        self._cut_tensors = tuple(tuple(names) for names in cut_tensors)
        self._threads = threads
        self._optimise = optimise
        self._sessions: dict[int, BlockSession] = {}

    @property
    def loaded(self) -> frozenset[int]:
        """Indices of the blocks that can run."""
        return frozenset(self._sessions)

    def load(self, index: int, model: bytes | Path) -> None:
        """Make the session of block ``index``, in place of the one it may have."""
        if not 0 <= index < len(self._cut_tensors) - 1:
            last = len(self._cut_tensors) - 2
            raise RuntimeSessionError("no such block", where="block", value=index, expected=f"0 to {last}")
        self._sessions[index] = BlockSession(
            model, provider=self.provider, threads=self._threads, optimise=self._optimise
        )

    def unload(self, index: int) -> None:
        """Drop the session of block ``index`` and its memory."""
        self._sessions.pop(index, None)

    def run_block(self, index: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one block.

        Parameters
        ----------
        index
            Which block; it must be loaded.
        tensors
            The tensors of cut ``index``, by name.

        Returns
        -------
        dict
            The tensors of cut ``index + 1``: what the block makes, and what only passes by. The result of an exit that
            the block computes is among them, and is dropped by the next block.

        Raises
        ------
        RuntimeSessionError
            The block is not loaded, a tensor is missing or does not fit, or onnxruntime fails.
        """
        session = self._session(index)
        return self._after(index, tensors, session.run(tensors))

    def run_segment(self, first: int, last: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run blocks ``first`` to ``last`` (inclusive) as one stage; between them tensors stay on the device.

        Takes the tensors of cut ``first`` and gives those of cut ``last + 1``; raises as :meth:`run_block`.
        """
        if self.provider.device is None:
            current = dict(tensors)
            for index in range(first, last + 1):
                current = self.run_block(index, current)
            return current
        return self.fetch(self._segment_on_device(first, last, self.send(first, tensors)))

    def send(self, index: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, DeviceTensor]:
        """Copy the tensors of cut ``index`` to the device, for :meth:`run_block_on_device`."""
        missing = [name for name in self._cut_tensors[index] if name not in tensors]
        if missing:
            raise RuntimeSessionError(Fault("tensor is missing", f"cut {index}", expected=name) for name in missing)
        return upload({name: tensors[name] for name in self._cut_tensors[index]}, self.provider)

    def run_block_on_device(self, index: int, tensors: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """Run one block on tensors that are on the device, as :meth:`run_block` does in the host's memory."""
        return self._after(index, tensors, self._session(index).run_on_device(tensors))

    def fetch(self, tensors: Mapping[str, DeviceTensor]) -> dict[str, NDArray[Any]]:
        """Copy tensors from the device into the host's memory."""
        return download(tensors)

    def _segment_on_device(self, first: int, last: int, tensors: dict[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        for index in range(first, last + 1):
            tensors = self.run_block_on_device(index, tensors)
        return tensors

    def _session(self, index: int) -> BlockSession:
        if index not in self._sessions:
            loaded = ", ".join(map(str, sorted(self._sessions))) or "none"
            raise RuntimeSessionError("block is not loaded", where="block", value=index, expected=f"one of: {loaded}")
        return self._sessions[index]

    def _after(self, index: int, before: Mapping[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        passing = [name for name in self._cut_tensors[index + 1] if name not in made]
        missing = [name for name in passing if name not in before]
        if missing:
            raise RuntimeSessionError(
                Fault("a tensor that passes by is missing", f"block {index}", expected=name) for name in missing
            )
        return {name: before[name] for name in passing} | made
