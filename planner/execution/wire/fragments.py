"""Frames in fragments, so that what is urgent need not wait for the end of what is long.

A fragment is an attachment and a piece of the frame's payload. The attachment is three numbers (stream, offset, size of
the whole payload) and a flag; on the first fragment the frame's header follows. A fragment whose flag asks for it is
acknowledged by an attachment alone: by that a sender knows how much is on its way.
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
"""No fragment carries more payload."""

MAX_HEADER_BYTES: Final = 32 * 2**20
"""No header is larger; a deployment's holds a scenario with its profiles and arrival times."""

_OPEN: Final = 64
"""How many frames of a sender may be unfinished at once; it has fewer levels of urgency than that."""

_REMEMBERED: Final = 1024
"""How many frames of a sender are remembered that are over: a fragment may come twice where its sender was told that it
could not be sent."""

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
    """Whether it is to be acknowledged."""
    acknowledges: bool = False

    @property
    def attachment(self) -> bytes:
        """Everything but the payload."""
        flag = _ACKNOWLEDGES if self.acknowledges else _ASKS if self.asks else _PLAIN
        return _PREFIX.pack(flag, self.stream, self.offset, self.total_bytes) + self.header

    @property
    def acknowledgement(self) -> Fragment:
        """What its receiver sends back."""
        return Fragment(self.stream, self.offset, self.total_bytes, acknowledges=True)


def read_fragment(attachment: bytes, payload: Payload) -> Fragment:
    """Read a fragment as it came.

    Raises
    ------
    ExecuteError
        It is none.
    """
    if len(attachment) < _PREFIX.size or attachment[0] > _ACKNOWLEDGES:
        raise ExecuteError("malformed header: not a fragment of a frame", where="fragment", value=len(attachment))
    flag, stream, offset, total = _PREFIX.unpack_from(attachment)
    return Fragment(
        stream, offset, total, attachment[_PREFIX.size :], payload, flag == _ASKS, flag == _ACKNOWLEDGES
    )  # fmt: skip


class Outgoing:
    """A frame on its way out, piece by piece."""

    def __init__(self, header: bytes, payload: Payload) -> None:
        self._header = header
        self._payload = payload
        self._stream = next(_STREAMS)
        self._offset = 0
        self.over = False

    @property
    def left_bytes(self) -> int:
        """What has not been sent yet."""
        return len(self._payload) - self._offset

    @property
    def whole_bytes(self) -> int:
        """The size of the whole frame."""
        return len(self._header) + len(self._payload)

    def next(self, size_bytes: int, *, asks: bool) -> Fragment:
        """Give the next fragment, with at most ``size_bytes`` of the payload."""
        first = self._offset
        self._offset = min(first + min(size_bytes, MAX_PIECE_BYTES), len(self._payload))
        self.over = self._offset == len(self._payload)
        header = b"" if first else self._header
        return Fragment(self._stream, first, len(self._payload), header, self._payload[first : self._offset], asks)


def split(header: bytes, payload: Payload) -> Iterator[Fragment]:
    """Give all fragments of a frame, as large as may be, none of which is acknowledged."""
    outgoing = Outgoing(header, payload)
    while not outgoing.over:
        yield outgoing.next(MAX_PIECE_BYTES, asks=False)


@dataclass(slots=True)
class _Unfinished:
    header: bytes
    pieces: list[Payload]
    got_bytes: int


class Assembler:
    """Puts the fragments of one sender's frames together; one that comes a second time counts for nothing.

    Its memory is bounded: a frame above ``limit_bytes`` is refused with its first fragment, and the oldest of too many
    unfinished frames is dropped.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._unfinished: dict[int, _Unfinished] = {}
        self._over: dict[int, None] = {}

    def add(self, fragment: Fragment) -> tuple[bytes, Payload] | None:
        """Take a fragment; give header and payload of the frame that it completes, if it does.

        A later fragment of a frame that was refused or dropped counts for nothing.

        Raises
        ------
        ExecuteError
            The frame is too large, or the fragment does not follow the one before.
        """
        if fragment.offset == 0 and fragment.stream not in self._unfinished and fragment.stream not in self._over:
            self._refuse_oversize(fragment)
            if len(self._unfinished) == _OPEN:
                del self._unfinished[next(iter(self._unfinished))]
            self._unfinished[fragment.stream] = _Unfinished(fragment.header, [], 0)
        found = self._unfinished.get(fragment.stream)
        if found is None or fragment.offset < found.got_bytes:
            return None
        piece = fragment.payload
        found.pieces.append(piece)
        found.got_bytes += len(piece)
        if fragment.offset + len(piece) != found.got_bytes or found.got_bytes > fragment.total_bytes:
            del self._unfinished[fragment.stream]
            raise ExecuteError("a fragment that does not follow the one before", where="frame", value=fragment.offset)
        if found.got_bytes < fragment.total_bytes:
            return None
        del self._unfinished[fragment.stream]
        self._over[fragment.stream] = None
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]
        return found.header, b"".join(found.pieces) if len(found.pieces) > 1 else found.pieces[0]

    def _refuse_oversize(self, fragment: Fragment) -> None:
        for what, size, limit in (
            ("message", fragment.total_bytes, self.limit_bytes),
            ("header", len(fragment.header), MAX_HEADER_BYTES),
        ):
            if size > limit:
                raise ExecuteError(f"oversize {what}", where="frame", value=size, expected=f"at most {limit} bytes")
