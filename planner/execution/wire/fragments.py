"""Fragments of frames, so that an urgent frame need not wait for the end of a long one.

A fragment consists of an attachment and a piece of the frame's payload. The attachment is a flag and three numbers
(stream, offset, size of the whole payload), followed by the frame's header on the first fragment. A fragment whose flag
asks for it is acknowledged by an attachment alone, which tells its sender how much is in flight.
"""

from __future__ import annotations

import itertools
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from planner.errors import ExecuteError
from planner.execution.wire.frames import Payload

_PREFIX: Final = struct.Struct("!BQQQ")

_PLAIN: Final = 0
_ASKS: Final = 1
_ACKNOWLEDGES: Final = 2

MAX_PIECE_BYTES: Final = 4 * 2**20
"""Largest payload of a fragment."""

MAX_HEADER_BYTES: Final = 32 * 2**20
"""Largest header; that of a deployment holds a scenario with its profiles and arrival times."""

_MAX_UNFINISHED: Final = 64
"""Largest number of unfinished frames of one sender; it has fewer levels of urgency than that."""

_REMEMBERED: Final = 1024
"""Number of complete frames remembered per sender, to recognise fragments that arrive twice: a transport may deliver a
fragment although it has reported that it could not send it."""

_STREAMS: Final = itertools.count(secrets.randbits(63))


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a frame on the wire, or the acknowledgement of one."""

    stream: int
    offset: int
    total_bytes: int
    header: bytes = b""
    payload: Payload = b""
    asks: bool = False
    """Whether the receiver is to acknowledge it."""
    acknowledges: bool = False

    @property
    def attachment(self) -> bytes:
        """Everything but the payload."""
        flag = _ACKNOWLEDGES if self.acknowledges else _ASKS if self.asks else _PLAIN
        return _PREFIX.pack(flag, self.stream, self.offset, self.total_bytes) + self.header

    @property
    def acknowledgement(self) -> Fragment:
        """The receiver's acknowledgement."""
        return Fragment(self.stream, self.offset, self.total_bytes, acknowledges=True)


def read_fragment(attachment: bytes, payload: Payload) -> Fragment:
    """Parse an inbound fragment.

    Raises
    ------
    ExecuteError
        The attachment is malformed.
    """
    if len(attachment) < _PREFIX.size or attachment[0] > _ACKNOWLEDGES:
        raise ExecuteError("malformed header: not a fragment of a frame", where="fragment", value=len(attachment))
    flag, stream, offset, total = _PREFIX.unpack_from(attachment)
    return Fragment(
        stream, offset, total, attachment[_PREFIX.size :], payload, flag == _ASKS, flag == _ACKNOWLEDGES
    )  # fmt: skip


class Outgoing:
    """An outbound frame, fragment by fragment."""

    def __init__(self, header: bytes, payload: Payload) -> None:
        self._header = header
        self._payload = payload
        self._stream = next(_STREAMS)
        self._offset = 0
        self.over = False

    @property
    def left_bytes(self) -> int:
        """Bytes of payload not sent yet."""
        return len(self._payload) - self._offset

    @property
    def whole_bytes(self) -> int:
        """Size of the whole frame."""
        return len(self._header) + len(self._payload)

    def next(self, size_bytes: int, *, asks: bool) -> Fragment:
        """Return the next fragment, with at most ``size_bytes`` of the payload."""
        first = self._offset
        self._offset = min(first + min(size_bytes, MAX_PIECE_BYTES), len(self._payload))
        self.over = self._offset == len(self._payload)
        header = b"" if first else self._header
        return Fragment(self._stream, first, len(self._payload), header, self._payload[first : self._offset], asks)


def split(header: bytes, payload: Payload) -> Iterator[Fragment]:
    """Yield the fragments of a frame, as large as possible, without acknowledgement."""
    outgoing = Outgoing(header, payload)
    while not outgoing.over:
        yield outgoing.next(MAX_PIECE_BYTES, asks=False)


@dataclass(slots=True)
class _Unfinished:
    header: bytes
    pieces: list[Payload]
    received_bytes: int


class Assembler:
    """Assembles one sender's frames from their fragments, ignoring duplicates.

    Its memory is bounded: a frame above ``limit_bytes`` is refused at its first fragment, and the oldest of too many
    unfinished frames is dropped. The receiver of several senders bounds their sum by :meth:`drop_oldest`.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.unfinished_bytes = 0
        """Size of what has arrived of unfinished frames."""
        self._unfinished: dict[int, _Unfinished] = {}
        self._over: dict[int, None] = {}

    def add(self, fragment: Fragment) -> tuple[bytes, Payload] | None:
        """Add a fragment; return header and payload of the frame that it completes, None if it completes none.

        Later fragments of a frame that was refused or dropped are ignored.

        Raises
        ------
        ExecuteError
            The frame is too large, or the fragment is not contiguous with the one before.
        """
        if fragment.offset == 0 and fragment.stream not in self._unfinished and fragment.stream not in self._over:
            self._refuse_oversize(fragment)
            if len(self._unfinished) == _MAX_UNFINISHED:
                self.drop_oldest()
            self._unfinished[fragment.stream] = _Unfinished(fragment.header, [], 0)
            self.unfinished_bytes += len(fragment.header)
        unfinished = self._unfinished.get(fragment.stream)
        if unfinished is None or fragment.offset < unfinished.received_bytes:
            return None
        piece = fragment.payload
        unfinished.pieces.append(piece)
        unfinished.received_bytes += len(piece)
        self.unfinished_bytes += len(piece)
        if (
            fragment.offset + len(piece) != unfinished.received_bytes
            or unfinished.received_bytes > fragment.total_bytes
        ):
            self._take(fragment.stream)
            raise ExecuteError("a fragment out of order", where="frame", value=fragment.offset)
        if unfinished.received_bytes < fragment.total_bytes:
            return None
        self._take(fragment.stream)
        self._over[fragment.stream] = None
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]
        return unfinished.header, b"".join(unfinished.pieces) if len(unfinished.pieces) > 1 else unfinished.pieces[0]

    def drop_oldest(self) -> int:
        """Drop the oldest unfinished frame, whose later fragments are ignored; return its size."""
        return self._take(next(iter(self._unfinished)))

    def _take(self, stream: int) -> int:
        taken = self._unfinished.pop(stream)
        size_bytes = len(taken.header) + taken.received_bytes
        self.unfinished_bytes -= size_bytes
        return size_bytes

    def _refuse_oversize(self, fragment: Fragment) -> None:
        for what, size, limit in (
            ("message", fragment.total_bytes, self.limit_bytes),
            ("header", len(fragment.header), MAX_HEADER_BYTES),
        ):
            if size > limit:
                raise ExecuteError(f"oversize {what}", where="frame", value=size, expected=f"at most {limit} bytes")
