"""The blocks of one model on this device, run one at a time or as a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from planner.errors import Fault, RuntimeSessionError
from planner.runtime.providers import Provider, find_provider
from planner.runtime.session import BlockSession, download, upload

Tensor = Any
"""A numpy array, or with a provider that has its own memory what onnxruntime calls an ``OrtValue``."""


class ChainRunner:
    """Sessions of the blocks of one chain, by index; any subset of its L blocks may be loaded.

    Parameters
    ----------
    cut_tensors
        Names of the tensors at each cut; length L + 1.
    name
        What messages call the model.
    provider, threads, optimise
        As for :class:`BlockSession`; the same for all blocks.
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

    def load(self, index: int, model: bytes | Path) -> None:
        """Make the session of block ``index``, in place of the one it may have."""
        if not 0 <= index < len(self._cut_tensors) - 1:
            last = len(self._cut_tensors) - 2
            raise RuntimeSessionError("no such block", where="block", value=index, expected=f"0 to {last}")
        name = f"{self._name}, block {index}" if self._name else f"block {index}"
        self._sessions[index] = BlockSession(
            model, name=name, provider=self.provider, threads=self.threads, optimise=self._optimise
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
        return self.run_segment(index, index, tensors)

    def run_segment(self, first: int, last: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run blocks ``first`` to ``last`` (inclusive) as one stage; between them tensors stay on the device.

        Takes the tensors of cut ``first`` and gives those of cut ``last + 1``; raises as :meth:`run_block`.
        Whoever wants to look at other work between blocks calls :meth:`send`, :meth:`step` and :meth:`fetch` instead.
        """
        current = self.send(first, tensors)
        for index in range(first, last + 1):
            current = self.step(index, current)
        return self.fetch(current)

    def send(self, cut: int, tensors: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Begin a stage: put the tensors of ``cut``, and no others, where the provider works on them."""
        names = self._cut_tensors[cut]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise RuntimeSessionError(Fault("tensor is missing", f"cut {cut}", expected=name) for name in missing)
        needed = {name: tensors[name] for name in names}
        return needed if self.provider.device is None else upload(needed, self.provider)

    def step(self, index: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one block of a stage: the tensors of cut ``index`` in, those of cut ``index + 1`` out."""
        session = self._session(index)
        made = session.run(tensors) if self.provider.device is None else session.run_on_device(tensors)
        for name in self._cut_tensors[index + 1]:
            if name not in made:
                made[name] = tensors[name]
        return made

    def fetch(self, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
        """End a stage: give the tensors in the host's memory."""
        return dict(tensors) if self.provider.device is None else download(tensors)

    def _session(self, index: int) -> BlockSession:
        if index not in self._sessions:
            loaded = ", ".join(map(str, sorted(self._sessions))) or "none"
            raise RuntimeSessionError("block is not loaded", where="block", value=index, expected=f"one of: {loaded}")
        return self._sessions[index]
