"""Models whose weights lie in files of their own have one identity, whatever Python reads them."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

import planner.model.source
from planner.errors import PlanError
from planner.model.load import load_chain
from planner.project import load_models
from tests.instances import make_instance, make_profile
from tests.model.chained import save, value

CHAIN = "636b81856206a17cb676006d9935c20128f6934d25192e11216d2c71519e6cbc"
"""Of :func:`outside` in two blocks, on every Python."""
JOINED_CHAIN = "26a197298d153cf568da46d1a156f9871e4488036590040a7e87355bd9a14b88"
"""What earlier versions took for it on Python 3.10."""

LAYERS: tuple[NodeProto, ...] = (
    helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
    helper.make_node("Tanh", ["a"], ["b"], name="tanh"),
    helper.make_node("MatMul", ["b", "v"], ["y"], name="second"),
)


def outside(folder: Path) -> Path:
    """Write two layers with weights in a file each, the same bytes with any version of anything."""
    path = save(folder / "outside.onnx", LAYERS, [value("x", [1, 64])], [value("y", [1, 64])])
    proto = onnx.load(path)
    for name, factor in (("w", 1), ("v", 7)):
        data = bytes(index * factor % 64 for index in range(64 * 64 * 4))
        (folder / f"{name}.bin").write_bytes(data)
        tensor = TensorProto(name=name, dims=[64, 64], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in {"location": f"{name}.bin", "offset": "0", "length": str(len(data))}.items():
            tensor.external_data.add(key=key, value=text)
        proto.graph.initializer.append(tensor)
    proto.producer_name = proto.producer_version = ""
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def test_identity_is_the_same_on_every_python(tmp_path: Path) -> None:
    model = load_chain(outside(tmp_path), max_blocks=2)
    files = [tmp_path / "v.bin", tmp_path / "w.bin"]
    expected = hashlib.sha256(model.path.read_bytes())
    for file in files:
        expected.update(hashlib.sha256(file.read_bytes()).digest())
    assert model.chain.model_sha256 == expected.hexdigest()
    assert model.chain.chain_sha256 == CHAIN


def test_files_are_hashed_alike_in_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = outside(tmp_path)
    whole = load_chain(path)
    monkeypatch.setattr(planner.model.source, "HASH_CHUNK_BYTES", 1000)
    pieces = load_chain(path)
    assert pieces.chain == whole.chain
    assert pieces.joined_chain_sha256() == whole.joined_chain_sha256()


def test_files_larger_than_a_piece_are_never_read_whole(tmp_path: Path) -> None:
    path, size_bytes = outside(tmp_path), 16 * planner.model.source.HASH_CHUNK_BYTES
    with (tmp_path / "w.bin").open("r+b") as file:
        file.truncate(size_bytes)
    tracemalloc.start()
    try:
        _ = planner.model.source.read_model(path).joined_sha256
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < size_bytes / 4


def test_profiles_that_an_earlier_version_wrote_on_python_3_10_are_told_apart(tmp_path: Path) -> None:
    path = outside(tmp_path)
    chain = load_chain(path, max_blocks=2, name="small").chain
    joined = hashlib.sha256(b"".join((tmp_path / name).read_bytes() for name in ("outside.onnx", "v.bin", "w.bin")))
    assert load_chain(path).source.joined_sha256 == joined.hexdigest()

    def refusal(chain_sha256: str) -> str:
        cut_bytes = [cut.bytes for cut in chain.cuts]
        profile = make_profile("small", block_s=[0.01, 0.02], cut_bytes=cut_bytes)
        instance = make_instance(
            profiles=[profile.model_copy(update={"chain_sha256": chain_sha256})],
            workers={"a": 1.0},
            sources={"s": {"rate_per_s": 1.0}},
        )
        spec = instance.scenario.models["small"].model_copy(update={"path": path.name, "max_blocks": 2})
        scenario = instance.scenario.model_copy(update={"models": {"small": spec}})
        with pytest.raises(PlanError) as caught:
            load_models(tmp_path / "scenario.yaml", instance.model_copy(update={"scenario": scenario}))
        return str(caught.value)

    told = refusal(JOINED_CHAIN)
    assert "written by an earlier version on Python 3.10" in told
    assert f"expected {CHAIN}; put it into the profiles" in told
    assert "was made for another chain" in refusal("another")
