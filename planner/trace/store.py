"""Storage for the records of runs: the first ones as they are, those of a long run compressed in a temporary file."""

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
"""Size below which data is kept in memory."""

_LENGTH: Final = struct.Struct("!I")

_LEVEL: Final = 1
"""Compression level. The fastest level shrinks the JSON of records to a twelfth."""

_MAX_UNPACKED_BYTES: Final = 2**26
"""Maximum unpacked size, so that data from other machines cannot exhaust the memory."""

_PIECE: Final = 500
"""Number of records that are packed together."""

KEPT: Final = 100_000
"""Number of records to keep in memory, in about 20 MB, where all of a run are read again and again after its end."""


def pack(data: bytes) -> bytes:
    """Return compressed data for :func:`unpack`."""
    return zlib.compress(data, _LEVEL)


def unpack(data: bytes) -> bytes:
    """Return the data passed to :func:`pack`.

    Raises
    ------
    zlib.error
        If the data is not packed, is truncated or is too large.
    """
    decompressor = zlib.decompressobj()
    unpacked = decompressor.decompress(data, _MAX_UNPACKED_BYTES)
    if not decompressor.eof:
        raise zlib.error(f"it is cut off, or larger than {_MAX_UNPACKED_BYTES} bytes")
    return unpacked


class Spool(Iterable[bytes]):
    """A sequence of byte strings in a temporary file that is deleted with the object."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SMALL_BYTES)  # noqa: SIM115 - closed with the object
        self._end = 0
        weakref.finalize(self, self._file.close)

    def add(self, piece: bytes) -> None:
        """Append a byte string.

        Raises
        ------
        PlannerError
            If it cannot be written, for example because the disk is full.
        """
        try:
            self._file.seek(self._end)
            self._file.write(_LENGTH.pack(len(piece)) + piece)
            self._end = self._file.tell()
        except OSError as error:
            where = tempfile.gettempdir()
            raise PlannerError("cannot store the data of the run", where=where, value=error.strerror) from error

    def __iter__(self) -> Iterator[bytes]:
        position = 0
        while position < self._end:
            self._file.seek(position)
            (size,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
            yield self._file.read(size)
            position += _LENGTH.size + size


class RecordStore(Collection[Record]):
    """Records from any thread, roughly in order of arrival; each iteration reads again those that are packed.

    Parameters
    ----------
    keep
        Number of records that stay in memory as they are; none while a run goes on, whose pauses for garbage they
        would prolong.
    """

    def __init__(self, records: Iterable[Record] = (), *, keep: int = 0) -> None:
        self._keep = keep
        self._kept: list[Record] = []
        self._pieces = Spool()
        self._last: list[Record] = []
        self._count = 0
        self._lock = threading.Lock()
        self.extend(records)

    def append(self, record: Record) -> None:
        """Add a record."""
        with self._lock:
            self._count += 1
            if len(self._kept) < self._keep:
                self._kept.append(record)
                return
            self._last.append(record)
            if len(self._last) == _PIECE:
                self._pieces.add(pack(encode_records(self._last)))
                self._last.clear()

    def extend(self, records: Iterable[Record]) -> None:
        """Add records."""
        for record in records:
            self.append(record)

    def add_packed(self, piece: bytes, check: Callable[[Sequence[Record]], None] | None = None) -> None:
        """Add records that are encoded and packed; if ``check`` raises, none are added.

        Raises
        ------
        zlib.error, pydantic.ValidationError
            If the data is not packed records.
        """
        records = decode_records(unpack(piece))
        if check is not None:
            check(records)
        with self._lock:
            self._count += len(records)
            if len(self._kept) + len(records) <= self._keep:
                self._kept += records
            else:
                self._pieces.add(piece)

    def __iter__(self) -> Iterator[Record]:
        yield from self._kept
        for piece in self._pieces:
            yield from decode_records(unpack(piece))
        yield from self._last

    def __len__(self) -> int:
        return self._count

    def __contains__(self, record: object) -> bool:
        return any(record == stored for stored in self)
