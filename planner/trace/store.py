"""The records of a run that may last for hours: packed, in a temporary file, and never all in memory."""

from __future__ import annotations

import struct
import tempfile
import threading
import weakref
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from planner.errors import PlannerError
from planner.trace.records import Record, decode_records, encode_records

_SMALL_BYTES: Final = 2**16
"""What is smaller needs no file."""

_LENGTH: Final = struct.Struct("!I")

_LEVEL: Final = 1
"""Of compression: the quickest makes the JSON of records a twelfth as large."""

_MOST_BYTES: Final = 2**26
"""Nothing that was packed is larger: what comes from elsewhere must not fill the memory."""

_PIECE: Final = 500
"""Records that are packed together."""


def pack(data: bytes) -> bytes:
    """Compress what :func:`unpack` gives back."""
    return zlib.compress(data, _LEVEL)


def unpack(data: bytes) -> bytes:
    """Give what :func:`pack` was given.

    Raises
    ------
    zlib.error
        It was none, or too large.
    """
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(data, _MOST_BYTES)
    if not unpacking.eof:
        raise zlib.error(f"it is cut off, or larger than {_MOST_BYTES} bytes")
    return found


class Spool(Iterable[bytes]):
    """Pieces of bytes one after the other, in a temporary file that goes with the object."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SMALL_BYTES)  # noqa: SIM115 - closed with the object
        self._end = 0
        weakref.finalize(self, self._file.close)

    def add(self, piece: bytes) -> None:
        """Append a piece.

        Raises
        ------
        PlannerError
            There is no room for it.
        """
        try:
            self._file.seek(self._end)
            self._file.write(_LENGTH.pack(len(piece)) + piece)
            self._end = self._file.tell()
        except OSError as error:
            where = tempfile.gettempdir()
            raise PlannerError("cannot keep what the run gives", where=where, value=error.strerror) from error

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while at < self._end:
            self._file.seek(at)
            (size,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            yield self._file.read(size)
            at += _LENGTH.size + size


class RecordStore(Collection[Record]):
    """Records of any thread, about in the order in which they came; read anew each time they are gone through."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._pieces = Spool()
        self._last: list[Record] = []
        self._count = 0
        self._lock = threading.Lock()
        self.extend(records)

    def append(self, record: Record) -> None:
        """Add a record."""
        with self._lock:
            self._last.append(record)
            self._count += 1
            if len(self._last) == _PIECE:
                self._pieces.add(pack(encode_records(self._last)))
                self._last.clear()

    def extend(self, records: Iterable[Record]) -> None:
        """Add records."""
        for record in records:
            self.append(record)

    def add_packed(self, piece: bytes, check: Callable[[Sequence[Record]], None] | None = None) -> None:
        """Add records that are encoded and packed, none of them if ``check`` raises.

        Raises
        ------
        zlib.error, pydantic.ValidationError
            They are not.
        """
        records = decode_records(unpack(piece))
        if check is not None:
            check(records)
        with self._lock:
            self._count += len(records)
            self._pieces.add(piece)

    def __iter__(self) -> Iterator[Record]:
        for piece in self._pieces:
            yield from decode_records(unpack(piece))
        yield from self._last

    def __len__(self) -> int:
        return self._count

    def __contains__(self, record: object) -> bool:
        return any(record == own for own in self)
