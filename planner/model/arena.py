"""onnxruntime's memory arena: how much memory a sequence of operations makes it touch.

The arena fits each tensor into the smallest free piece that is large enough, splits the piece if at least as much would
be left, and joins free neighbours. If nothing fits, it takes a region from the system: 1 MiB, then twice as much
each time. Regions are neither joined nor given back, and whatever has been written once stays resident. A table of each
region takes 1/32 of its size. Hence an arena holds more than the tensors alive at once, up to twice as much where sizes
differ.

Source: ``onnxruntime/core/framework/bfc_arena.cc``, with its defaults (``kNextPowerOfTwo``).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

LEAST_BYTES: Final = 256
FIRST_REGION_BYTES: Final = 2**20
LARGEST_GROWTH_BYTES: Final = 2**30
MOST_UNSPLIT_BYTES: Final = 128 * 2**20
ENTRY_BYTES: Final = 8
"""Size of an entry in the table of a region, which has one entry for each possible piece."""
PAGE_BYTES: Final = 4096
RUNS: Final = 3
"""Number of runs after which an arena has the size that it keeps."""


class Buffer(NamedTuple):
    """A tensor in one layout: onnxruntime keeps images also as blocks of channels (NCHWc)."""

    tensor: str
    blocked: bool = False


class Write(NamedTuple):
    """A buffer that is written, with its size in bytes and the shape of its tensor."""

    buffer: Buffer
    size_bytes: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Step:
    """An operation on buffers.

    Parameters
    ----------
    reads
        Buffers that are read. Those that no step writes are inputs, which lie outside the arena.
    writes
        Buffers that are written.
    scratch_bytes
        Sizes of further buffers needed during the operation, all at the same time.
    over
        Buffers whose place the first output takes if it has the same size and no later step reads them.
    view
        Buffer of which the output is another view; it takes no memory of its own.
    """

    reads: tuple[Buffer, ...]
    writes: tuple[Write, ...]
    scratch_bytes: tuple[int, ...] = ()
    over: tuple[Buffer, ...] = ()
    view: Buffer | None = None


class _Piece(NamedTuple):
    """A piece of a region. The system places later regions lower, so of equal pieces the arena takes the latest."""

    size: int
    minus_region: int
    start: int


class Arena:
    """Free pieces of memory in regions that only grow in number."""

    def __init__(self) -> None:
        self._free: list[_Piece] = []
        self._touched: list[int] = []
        self._next_bytes = FIRST_REGION_BYTES
        self._table_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Resident memory in bytes: of each region as much as has been written, and the table of its pieces."""
        return self._table_bytes + sum(-(-touched // PAGE_BYTES) * PAGE_BYTES for touched in self._touched)

    def allocate(self, size_bytes: int) -> _Piece:
        """Take a piece of memory."""
        rounded = max(1, -(-size_bytes // LEAST_BYTES)) * LEAST_BYTES
        at = bisect.bisect_left(self._free, (rounded,))
        if at == len(self._free):
            self._extend(rounded)
            at = bisect.bisect_left(self._free, (rounded,))
        piece = self._free.pop(at)
        rest = piece.size - rounded
        if rest >= min(rounded, MOST_UNSPLIT_BYTES):
            bisect.insort(self._free, _Piece(rest, piece.minus_region, piece.start + rounded))
            piece = piece._replace(size=rounded)
        region = -piece.minus_region
        self._touched[region] = max(self._touched[region], piece.start + rounded)
        return piece

    def free(self, piece: _Piece) -> None:
        """Return a piece of memory, and join it with its free neighbours."""
        for other in [other for other in self._free if _touch(piece, other)]:
            self._free.remove(other)
            piece = _Piece(piece.size + other.size, piece.minus_region, min(piece.start, other.start))
        bisect.insort(self._free, piece)

    def _extend(self, rounded: int) -> None:
        grown = rounded > self._next_bytes
        while rounded > self._next_bytes:
            self._next_bytes *= 2
        bisect.insort(self._free, _Piece(self._next_bytes, -len(self._touched), 0))
        self._touched.append(0)
        self._table_bytes += self._next_bytes // LEAST_BYTES * ENTRY_BYTES
        if not grown and self._next_bytes < LARGEST_GROWTH_BYTES:
            self._next_bytes *= 2


def _touch(piece: _Piece, other: _Piece) -> bool:
    return piece.minus_region == other.minus_region and (
        piece.start + piece.size == other.start or other.start + other.size == piece.start
    )


@dataclass
class _Place:
    """Memory of one or more buffers.

    Parameters
    ----------
    size_bytes, shape
        Size, and shape of the first tensor.
    first, last
        Steps before which it is taken and after which it is returned.
    buffers
        Buffers that it holds at the moment, while places are planned.
    """

    size_bytes: int
    shape: tuple[int, ...] | None
    first: int
    last: int
    buffers: set[Buffer] = field(default_factory=set)


def arena_bytes(steps: Sequence[Step], kept: Iterable[Buffer]) -> int:
    """Return the memory that an arena holds after some runs of a sequence of operations, in bytes.

    Parameters
    ----------
    steps
        The operations, in order.
    kept
        Outputs, which stay until the run ends.
    """
    places = _Plan(steps, frozenset(kept)).places
    arena = Arena()
    for _ in range(RUNS):
        _run(arena, steps, places)
    return arena.held_bytes


def _run(arena: Arena, steps: Sequence[Step], places: Sequence[_Place]) -> None:
    starting: list[list[_Place]] = [[] for _ in range(len(steps) + 1)]
    ending: list[list[_Place]] = [[] for _ in range(len(steps) + 1)]
    for place in places:
        starting[place.first].append(place)
        ending[place.last].append(place)
    pieces: dict[int, _Piece] = {}
    for index in range(len(steps) + 1):
        for place in starting[index]:
            pieces[id(place)] = arena.allocate(place.size_bytes)
        if index < len(steps):
            for piece in [arena.allocate(size_bytes) for size_bytes in steps[index].scratch_bytes]:
                arena.free(piece)
        for place in ending[index]:
            arena.free(pieces.pop(id(place)))


class _Plan:
    """Places of the buffers of a run, which onnxruntime plans when it creates a session.

    A buffer lies where its step says, else where an earlier buffer of the same shape has lain that is no longer needed,
    else in a new place. A place is held until its last buffer is no longer needed. Outputs have places of their own.
    (``onnxruntime/core/framework/allocation_planner.cc``)
    """

    def __init__(self, steps: Sequence[Step], kept: frozenset[Buffer]) -> None:
        self.places: list[_Place] = []
        self._kept = kept
        self._last_use = {buffer: index for index, step in enumerate(steps) for buffer in step.reads}
        self._last_use |= dict.fromkeys(kept, len(steps))
        self._place_of: dict[Buffer, _Place] = {}
        self._unused: list[_Place] = []
        for index, step in enumerate(steps):
            for write in step.writes:
                self._write(index, step, write)
            for buffer in (*step.reads, *(write.buffer for write in step.writes)):
                if self._last_use.get(buffer, -1) <= index:
                    self._leave(buffer)

    def _write(self, index: int, step: Step, write: Write) -> None:
        buffer = write.buffer
        if step.view is not None:
            place = self._place_of.get(step.view)  # none for a view of an input, which lies outside the arena
        elif write.size_bytes:
            place = None if buffer in self._kept else self._earlier(index, step, write)
            if place is None:
                place = _Place(write.size_bytes, write.shape, index, index)
                self.places.append(place)
        else:
            place = None
        if place is not None:
            place.buffers.add(buffer)
            place.last = max(place.last, index, self._last_use.get(buffer, index))
            self._place_of[buffer] = place

    def _earlier(self, index: int, step: Step, write: Write) -> _Place | None:
        for buffer in step.over:
            place = self._place_of.get(buffer)
            dies = self._last_use[buffer] == index
            if dies and place and place.buffers == {buffer} and place.size_bytes == write.size_bytes:
                return place
        for place in self._unused:
            if (place.size_bytes, place.shape) == (write.size_bytes, write.shape):
                self._unused.remove(place)
                return place
        return None

    def _leave(self, buffer: Buffer) -> None:
        place = self._place_of.pop(buffer, None)
        if place is not None:
            place.buffers.discard(buffer)
            if not place.buffers:
                self._unused.insert(0, place)
