"""ONNX files: damaged bytes, and models with odd entries; cut into blocks, the first of which onnxruntime loads."""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
from hypothesis import strategies as st

from planner.model.load import load_chain
from planner.runtime.session import BlockSession
from tests.fuzz.judge import Target
from tests.fuzz.mutate import Draw, damaged
from tests.fuzz.seeds import folder, put
from tests.model import indexed
from tests.profiling.small_chain import SmallModel

NUMBERS = [0, 1, 2, 3, 7, 32, -1, -2, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]
TEXTS = ["", "x", "t0", "w", "Relu", "Reshape", "Expand", "Tile", "Range", "ConstantOfShape", "Loop", "If", "Constant",
         "ai.onnx.ml", "com.microsoft", "own", "../x", "/etc/hostname", "x" * 3000, "é", "a\nb"]  # fmt: skip


@cache
def seeds() -> list[bytes]:
    """Return models: products and sums, look-ups, shapes that are computed, a function, a cache."""
    written = []
    for make in (indexed.embedding, indexed.shape_across_cuts, indexed.with_function, indexed.cached, indexed.picky):
        make(folder() / "seed.onnx")
        written.append((folder() / "seed.onnx").read_bytes())
    return [SmallModel(3).model_bytes(), *written]


@st.composite
def odd_models(draw: Draw) -> bytes:
    """Return a model of which one to three entries, anywhere in it, are removed, repeated or replaced."""
    model = onnx.load_model_from_string(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, model)
    return bytes(model.SerializeToString())


def _change(draw: Draw, message: Any) -> None:
    """Walk down from a message to one of its fields at random, and change it there."""
    for _ in range(12):
        fields = [field for field, _ in message.ListFields()]
        if not fields:
            return
        field = draw(st.sampled_from(fields))
        value = getattr(message, field.name)
        repeated = hasattr(value, "__len__") and not isinstance(value, str | bytes)
        if field.message_type is not None:
            inner = value[draw(st.integers(0, len(value) - 1))] if repeated else value
            kind = draw(st.integers(0, 19))
            if kind == 0 and repeated:
                value.remove(inner)
                return
            if kind == 1 and repeated:
                value.add().CopyFrom(inner)
                return
            if kind == 2:
                message.ClearField(field.name)
                return
            message = inner
            continue
        _replace(draw, message, field, value, repeated=repeated)
        return


def _replace(draw: Draw, message: Any, field: Any, value: Any, *, repeated: bool) -> None:
    old = value[0] if repeated else value
    if isinstance(old, bytes) and field.name == "raw_data":
        new: Any = draw(st.sampled_from([b"", old[:-1], old[: len(old) // 2], old * 2, b"\xff" * len(old)]))
    elif isinstance(old, str | bytes):
        new = draw(st.sampled_from(TEXTS))
        new = new.encode() if isinstance(old, bytes) else new
    else:
        new = draw(st.sampled_from(NUMBERS))
        new = type(old)(new)
    try:
        if repeated and draw(st.integers(0, 3)) == 0:
            value.extend([new] * draw(st.sampled_from([1, 1, 70])))
        elif repeated:
            value[draw(st.integers(0, len(value) - 1))] = new
        else:
            setattr(message, field.name, new)
    except (ValueError, TypeError):  # the number is not one of this field's
        message.ClearField(field.name)


def read(case: bytes) -> None:
    """Cut a model into blocks, write them all, and load the first."""
    chain = load_chain(put("model.onnx", case), max_blocks=4)
    blocks = [chain.block_model(index) for index in range(len(chain.chain))]
    BlockSession(blocks[0], name="block")


CASES = st.deferred(odd_models) | st.deferred(odd_models) | st.deferred(lambda: damaged(seeds()))
TARGET = Target("model", CASES, read, share=0.5, alone=True)
