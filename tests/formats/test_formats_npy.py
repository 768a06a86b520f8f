"""Arrays from outside: read as their headers say, within a limit; damaged ones are one error."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from planner.formats.npy import NpyError, open_npz, read_npy

ARRAYS = [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.ones((2, 3), np.float32)), np.zeros((0, 4)), np.array(3)]


def npy(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asanyarray(array))
    return file.getvalue()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.shape))
def test_arrays_are_read_as_written(array: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_npy(io.BytesIO(npy(array))), array, strict=True)
    np.savez_compressed(tmp_path / "x.npz", a=array, b=array)
    with open_npz(tmp_path / "x.npz") as archive:
        assert set(archive.names) == {"a", "b"}
        np.testing.assert_array_equal(archive.read("b"), array, strict=True)


def test_no_memory_is_taken_for_what_a_header_alone_announces() -> None:
    small, large = npy(np.zeros(8)), npy(np.zeros(2000))
    with pytest.raises(NpyError, match="the data end after 64 of 9999992 bytes"):
        read_npy(io.BytesIO(small.replace(b"(8,)", b"(1249999,)").replace(b" " * 6, b"", 1)))
    with pytest.raises(NpyError, match="16000 bytes; at most 8000 are read"):
        read_npy(io.BytesIO(large), 8000)


@pytest.mark.parametrize(
    "shape", ["(-8,)", "(0, 9223372036854775808)", "(8.5,)", "(1,) * 9", "8", "(" + "1," * 40 + ")"]
)
def test_a_shape_that_no_array_has_is_refused(shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    with pytest.raises(NpyError):
        read_npy(io.BytesIO(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + bytes(64)))


def test_objects_are_refused_without_a_look_at_them() -> None:
    with pytest.raises(NpyError, match="Python objects"):
        read_npy(io.BytesIO(npy(np.zeros(2)).replace(b"<f8", b"|O8")))


@pytest.mark.parametrize("kept", [0, 3, 30, 130])
def test_a_file_that_is_cut_off_is_refused(kept: int, tmp_path: Path) -> None:
    with pytest.raises(NpyError):
        read_npy(io.BytesIO(npy(np.arange(9.0))[:kept]))
    np.savez(tmp_path / "x.npz", a=np.arange(9.0))
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:kept])
    with pytest.raises(NpyError), open_npz(tmp_path / "x.npz"):
        pass


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_flipped_byte_in_packed_data_is_one_error(packing: int, tmp_path: Path) -> None:
    content = npy(np.random.default_rng(0).normal(size=500))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", packing) as archive:
        archive.writestr("a.npy", content)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[1000] ^= 0x10
    (tmp_path / "x.npz").write_bytes(data)
    with open_npz(tmp_path / "x.npz") as arrays, pytest.raises(NpyError, match=r"^a: damaged"):
        arrays.read("a")
