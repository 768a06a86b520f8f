"""Arrays in ``.npy`` and ``.npz`` files: samples, inputs of a model, labelled data, recorded predictions."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

from planner.errors import PlannerError
from planner.execution.session.samples import find_samples
from planner.model.chain import TensorSpec
from planner.profiling.operating_points import load_samples
from planner.profiling.recorded_predictions import load_predictions
from planner.runtime.inputs import read_inputs
from tests.fuzz.judge import Target
from tests.fuzz.mutate import Draw, damaged
from tests.fuzz.seeds import folder, put
from tests.profiling.small_chain import SmallModel

CHAIN = SmallModel(3).chain
SPECS = (TensorSpec("t0", "float32", (1, 32)),)
TYPES = [
    "<f4",
    ">f4",
    "<f8",
    "|b1",
    "<i8",
    "|O",
    "|V8",
    "<U3",
    "|S0",
    "<M8[s]",
    "<c16",
    "x",
    "",
    "<f99",
    "|V0",
    "[('a', '<f4')]",
]
SIZES: list[object] = [0, 1, 2, 3, 32, 64, -1, 2**31, 2**62, 2**63, 10**30, 1.5, True, None, "x"]

Case: TypeAlias = tuple[str, bytes]


def npy(header: str, data: bytes, version: bytes = b"\1\0") -> bytes:
    """Return an ``.npy`` file with any header."""
    text = header.encode("utf-8", "replace") + b"\n"
    size = struct.pack("<H", len(text) % 2**16) if version == b"\1\0" else struct.pack("<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def npz(arrays: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an ``.npz`` file of the contents of ``.npy`` files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)
    return file.getvalue()


@st.composite
def any_npy(draw: Draw) -> bytes:
    """Return an ``.npy`` file whose header is odd, and its data of another size."""
    shape = (
        draw(st.lists(st.sampled_from(SIZES), max_size=4))
        if draw(st.integers(0, 3))
        else [1] * draw(st.sampled_from([33, 65, 300]))
    )
    head = f"{{'descr': {draw(st.sampled_from(TYPES))!r}, 'fortran_order': {draw(st.sampled_from([False, True, 2]))}, "
    head += f"'shape': ({''.join(f'{size!r}, ' for size in shape)}), }}"
    if draw(st.integers(0, 5)) == 0:
        head = draw(
            st.sampled_from(
                ["", "{", "{}", "[" * 200, "(" * 9000, "1+1", "{'a': 1}", "x" * 20_000, "'" * 3, "\0", "-" * 5000 + "1"]
            )
        )
    version = draw(st.sampled_from([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\xff\xff"]))
    return npy(head, bytes(draw(st.sampled_from([0, 4, 128, 256, 5000]))), version)


def _saved(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _single(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array)  # type: ignore[arg-type]
    return file.getvalue()


X = np.arange(64, dtype=np.float32).reshape(2, 32)
GOOD_NPZ = [
    _saved(t0=X), _saved(t0=X, label=np.array([0, 1])), _saved(t0=X[:1]),
    _saved(confidence=np.full((3, 2), 0.5), correct=np.ones((3, 2), bool)),
    npz({"t0.npy": _single(X)}, zipfile.ZIP_STORED),
]  # fmt: skip
GOOD_NPY = [_single(X), _single(X[:1]), _single(X.astype(">f4"))]
NAMES = ["t0.npy", "t0", "label.npy", "confidence.npy", "correct.npy", "../x.npy", "é.npy", "t0.npy/", "x" * 300]

CASES = st.one_of(
    damaged(GOOD_NPZ).map(lambda data: ("npz", data)),
    damaged(GOOD_NPY).map(lambda data: ("npy", data)),
    any_npy().map(lambda data: ("npy", data)),
    st.dictionaries(st.sampled_from(NAMES), any_npy() | st.just(GOOD_NPY[0]), max_size=3).map(
        lambda some: ("npz", npz(some))
    ),
)


def read(case: Case) -> None:
    """Read a file in every way that there is; the first of them that refuses it is not the last."""
    kind, data = case
    (folder() / "samples").mkdir(exist_ok=True)
    path = put(f"samples/x.{kind}", data)
    other = folder() / "samples" / ("x.npy" if kind == "npz" else "x.npz")
    other.unlink(missing_ok=True)
    refusals = []

    def samples(origin: str) -> None:
        for sample in find_samples(origin, SPECS):
            sample.read()

    readers = (
        lambda: samples(str(folder() / "samples")),
        lambda: samples(str(path) if kind == "npz" or len(data) % 16 else f"cat {path}"),
        lambda: read_inputs(path, SPECS),
        lambda: load_samples(path, CHAIN),
        lambda: load_predictions(path, 1),
    )
    for reader in readers:
        try:
            reader()
        except PlannerError as error:
            refusals.append(str(error))
    if len(refusals) == len(readers):
        raise PlannerError(max(refusals, key=len))


TARGET = Target("arrays", CASES, read)
