from __future__ import annotations

from pathlib import Path

import pytest

from planner.model.load import load_chain
from planner.model.network import ModelBuilder
from planner.model.reference import REFERENCE, build_model
from planner.model.work import KINDS, TERMS


@pytest.mark.parametrize("name", ["mobilenetv2-96", "resnet56-exits", "gpt2-small"])
def test_the_work_of_the_blocks_is_that_of_the_model(name: str, tmp_path: Path) -> None:
    path = build_model(name, tmp_path / "model.onnx")
    coarse, whole = load_chain(path, max_blocks=8), load_chain(path, max_blocks=1)
    works = [coarse.work(index) for index in range(len(coarse.chain))]
    total = {kind: sum(work[kind].flop for work in works if kind in work) for kind in KINDS}
    if len(whole.chain) == 1:  # exits force borders
        assert {kind: work.flop for kind, work in whole.work(0).items()} == pytest.approx(
            {kind: flop for kind, flop in total.items() if any(kind in work for work in works)}
        )
    assert sum(total.values()) == pytest.approx(sum(block.flop for block in coarse.chain.blocks), rel=1e-6)
    assert sum(total.values()) >= 2 * REFERENCE[name].macs * 0.999


def test_kinds_of_mobilenetv2(tmp_path: Path) -> None:
    work = load_chain(build_model("mobilenetv2-96", tmp_path / "m.onnx"), max_blocks=1).work(0)
    assert work["depthwise_convolution"].kernels == 17
    assert work["pointwise_convolution"].kernels == 34
    assert work["first_convolution"].kernels == 1
    assert work["vector_product"].kernels == 1
    assert work["fused"].kernels == 0
    assert "elementwise" not in work


def _block(tmp_path: Path, operator: str, *, sum_first: bool) -> dict[str, tuple[float, ...]]:
    build = ModelBuilder("m", opset=20)
    x = build.input("x", (1, 16, 8, 8))
    y = build.node("Add", [x, x], "sum") if sum_first else build.conv(x, "conv", 16, 3)
    build.output("y", build.node(operator, [y], "last"), (1, 16, 8, 8))
    work = load_chain(build.save(tmp_path / "m.onnx"), max_blocks=1).work(0)
    return {kind: tuple(getattr(item, term) for term in TERMS) for kind, item in work.items()}


def test_an_activation_after_a_convolution_is_fused_and_counted_by_hand(tmp_path: Path) -> None:
    size = 4 * 16 * 8 * 8
    work = _block(tmp_path, "Relu", sum_first=False)
    assert work == {
        "border": (0, 0, 2 * size, 0),
        "convolution": (1, 2 * 16 * 64 * 16 * 9, 2 * size, 4 * 16 * 16 * 9),
        "fused": (0, 16 * 64, 2 * size, 0),
    }
    work = _block(tmp_path, "Sigmoid", sum_first=True)
    assert work == {
        "border": (0, 0, 2 * size, 0),
        "elementwise": (1, 16 * 64, 2 * size, 0),
        "function": (1, 16 * 64, 2 * size, 0),
    }
