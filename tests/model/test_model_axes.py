"""Sizes of named axes, given once for all inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from planner.errors import ModelError, PlannerWarning
from planner.model.load import load_chain
from tests.cli.command import planner
from tests.model.chained import BOOL, INT64, assert_cuts_match_tensors, floats, save, value

node = helper.make_node
BOTH = {"batch": 1, "seq": 3, "past": 5}


def decoder(folder: Path, *, total: str = "total", names_outputs: bool = True) -> Path:
    """Write a decoder of width 8 with a mask and two caches, whose length after a step is ``total``."""
    nodes, inputs, outputs = [], [value("x", ["batch", "seq", 8]), value("mask", ["batch", total])], []
    weights = {"w0": floats(8, 8), "w1": floats(8, 8, seed=1)}
    nodes.append(node("Unsqueeze", ["mask", "axis"], ["bias"]))
    query = "x"
    for layer in range(2):
        past, present = f"past{layer}", f"present{layer}"
        inputs.append(value(past, ["batch", "past", 8]))
        outputs.append(value(present, ["batch", total if names_outputs else f"length{layer}", 8]))
        nodes += [
            node("MatMul", [query, f"w{layer}"], [f"key{layer}"]),
            node("Concat", [past, f"key{layer}"], [present], axis=1),
            node("Transpose", [present], [f"turned{layer}"], perm=[0, 2, 1]),
            node("MatMul", [query, f"turned{layer}"], [f"scores{layer}"]),
            node("Add", [f"scores{layer}", "bias"], [f"masked{layer}"]),
            node("Softmax", [f"masked{layer}"], [f"share{layer}"]),
            node("MatMul", [f"share{layer}", present], [f"y{layer}"]),
        ]
        query = f"y{layer}"
    weights["axis"] = np.array([1])
    return save(folder / "m.onnx", nodes, inputs, [*outputs, value(query, ["batch", "seq", 8])], weights)


def shapes(total: int = 8) -> Mapping[str, Sequence[int]]:
    return {"x": (1, 3, 8), "mask": (1, total), "past0": (1, 5, 8), "past1": (1, 5, 8)}


@pytest.mark.parametrize(
    ("total", "names_outputs"),
    [("total", True), ("total", False), ("past + seq", False), ("past+2*seq - 3", True)],
    ids=["output", "sum with scores", "expression", "longer expression"],
)
def test_what_follows_is_found_and_gives_the_chain_of_explicit_shapes(
    tmp_path: Path, total: str, *, names_outputs: bool
) -> None:
    path = decoder(tmp_path, total=total, names_outputs=names_outputs)
    model = load_chain(path, axes=BOTH)
    assert model.axes.given == BOTH
    assert model.axes.follow == {total: 8} | ({} if names_outputs else {"length0": 8, "length1": 8})
    assert model.chain.chain_sha256 == load_chain(path, shape=shapes()).chain.chain_sha256
    assert_cuts_match_tensors(model)


def test_shapes_and_axes_can_be_mixed(tmp_path: Path) -> None:
    path = decoder(tmp_path)
    mixed = load_chain(path, axes={"seq": 3}, shape={"past1": (1, 5, 8)})
    assert mixed.chain.chain_sha256 == load_chain(path, shape=shapes()).chain.chain_sha256
    assert mixed.axes.follow == {"total": 8}


def grouped_attention(folder: Path, packed: int) -> Path:
    """Write onnxruntime's attention with caches of two heads of 4; the queries have four."""
    query, key = (32, "") if packed else (16, "k")
    inputs = [value("q", ["batch", "seq", query]), value("lengths", ["batch", 1], TensorProto.INT32)]
    inputs += [value(name, ["batch", "seq", 8]) for name in "kv" if key]
    inputs += [value(name, ["batch", 2, "past", "width"]) for name in ("pk", "pv")]
    wanted = [value("y", ["batch", "seq", 16]), *(value(name, ["batch", 2, "total", "width"]) for name in ("ck", "cv"))]
    names = ["q", key, key and "v", "pk", "pv", "lengths", "sum"]
    nodes = [
        node("Size", ["mask"], ["size"]),
        node("Cast", ["size"], ["sum"], to=TensorProto.INT32),
        node("GroupQueryAttention", names, ["y", "ck", "cv"], domain="com.microsoft", num_heads=4, kv_num_heads=2),
    ]
    return save(folder / "m.onnx", nodes, [*inputs, value("mask", ["batch", "total"], INT64)], wanted)


@pytest.mark.parametrize("packed", [0, 1])
def test_caches_of_grouped_attention_follow(tmp_path: Path, packed: int) -> None:
    model = load_chain(grouped_attention(tmp_path, packed), axes=BOTH)
    assert model.axes.follow == {"width": 4, "total": 8}


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ({}, {"length": 3}, r"unknown axis; found 'length'; expected one of batch, seq, total, past"),
        ({"x": (2, 3, 8)}, {"batch": 1}, r"contradicts --shape of input 'x'; found 'batch=1'; expected batch=2"),
        ({}, BOTH | {"total": 9}, r"--axis contradicts .*found 'total=9'; expected total=8, .* tensor 'present0'"),
        ({}, BOTH | {"batch": -1}, r"not a size of axis 'batch'; found -1"),
        (
            {},
            {"batch": 1, "past": 5},
            r"input 'x': .*found \['batch', 'seq', 8\]; .*or --axis seq=16\n.*--axis total=1$",
        ),
    ],
)
def test_what_contradicts_is_named(
    tmp_path: Path, shape: Mapping[str, Sequence[int]], axes: Mapping[str, int], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_chain(decoder(tmp_path), shape=shape, axes=axes)


@pytest.mark.parametrize("symbol", ["?", "side"])
def test_a_symbol_of_several_sizes_is_left_open_elsewhere(tmp_path: Path, symbol: str) -> None:
    nodes = [node("GlobalAveragePool", ["x"], ["a"]), node("Compress", ["z", "kept"], ["y"], axis=0)]
    inputs = [value("x", [1, 2, symbol, symbol]), value("z", [4, 2]), value("kept", [4], BOOL)]
    path = save(tmp_path / "m.onnx", nodes, inputs, [value("a", [1, 2, 1, 1]), value("y", [symbol, 2])])
    with pytest.raises(ModelError, match="tensor 'y': the size of this tensor is unknown") as told:
        load_chain(path, shape={"x": (1, 2, 4, 6)})
    several = [fault.value for fault in told.value.faults if "several sizes" in fault.what]
    assert several == (["4 in 'x' and 6 in 'x'"] if symbol == "side" else [])


@pytest.mark.parametrize(("rows", "expected"), [((0, 3), "0 in 'a' and 3 in 'b'"), ((2, 3), "2 in 'a' and 3 in 'b'")])
def test_two_sizes_of_one_axis_are_named_before_what_follows(
    tmp_path: Path, rows: tuple[int, int], expected: str
) -> None:
    inputs = [value("a", ["n", 4]), value("b", ["n", 4])]
    path = save(tmp_path / "m.onnx", [node("Add", ["a", "b"], ["y"])], inputs, [value("y", ["n", 4])])
    with pytest.raises(ModelError, match=r"^.*m\.onnx: inputs give axis 'n' several sizes") as told:
        load_chain(path, shape={"a": (rows[0], 4), "b": (rows[1], 4)})
    assert told.value.faults[0].value == expected
    with pytest.warns(PlannerWarning, match="inputs give axis 'n' several sizes"):  # one row fits any number of rows
        assert load_chain(path, shape={"a": (1, 4), "b": (3, 4)}).chain.cuts[-1].tensors[0].shape == (3, 4)


def test_an_expression_that_is_given_another_value_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found 'past \+ seq=9'; expected 8"):
        load_chain(decoder(tmp_path, total="past + seq", names_outputs=False), axes=BOTH | {"past + seq": 9})


def test_the_command_line_tells_what_follows(tmp_path: Path) -> None:
    path = decoder(tmp_path)
    words = [word for name, size in BOTH.items() for word in ("--axis", f"{name}={size}")]
    assert "axes batch=1, seq=3, past=5; total=8 follows" in planner("inspect", path, *words).stdout
    split = planner("split", path, "--cuts", "2", "-o", tmp_path / "parts", *words)
    assert split.returncode == 0
    assert "total=8 follows" in split.stderr
    profile = planner("profile", "estimate", path, "--device-class", "jetson-nano", "-o", tmp_path / "p.json", *words)
    assert profile.returncode == 0
    assert "total=8 follows" in profile.stderr
    for wrong in ("batch", "batch=x", "batch=-1"):
        refused = planner("inspect", path, "--axis", wrong)
        assert refused.returncode == 2
        assert "not the size of an axis" in refused.stderr
    assert planner("inspect", path, "--axis", "batch=1", "--axis", "batch=2").returncode == 2
