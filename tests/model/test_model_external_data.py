"""Models whose weights lie in files of their own have one identity, whatever Python reads them."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper

import planner.model.source
from planner.errors import ModelError, PlanError
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
    assert "the profile of model small is not of this chain: block 0 is" in refusal("another")


def _in_a_hub(folder: Path) -> Path:
    """Lay a model out as the cache of a hub does: every file is a link into a folder of blobs."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "main" / "onnx"
    for place in (blobs, snapshot):
        place.mkdir(parents=True)
    for file in (outside(blobs), blobs / "w.bin", blobs / "v.bin"):
        blob = file.rename(blobs / hashlib.sha256(file.read_bytes()).hexdigest())
        (snapshot / file.name).symlink_to(Path("../../../blobs", blob.name))
    return snapshot / "outside.onnx"


def _beside_the_target(folder: Path) -> Path:
    """Link model and data to files of one folder; the data lies deeper."""
    for place in ("real/deep", "links"):
        (folder / place).mkdir(parents=True)
    (folder / "links/outside.onnx").symlink_to(outside(folder / "real"))
    (folder / "links/v.bin").symlink_to(folder / "real/v.bin")
    (folder / "links/w.bin").symlink_to((folder / "real/w.bin").rename(folder / "real/deep/w.bin"))
    return folder / "links/outside.onnx"


def _in_a_linked_folder(folder: Path) -> Path:
    (folder / "real").mkdir()
    (folder / "linked").symlink_to(outside(folder / "real").parent)
    return folder / "linked/outside.onnx"


def _in_the_folder(folder: Path) -> Path:
    path = outside(folder)
    (folder / "w.bin").rename(folder / "weights")
    (folder / "w.bin").symlink_to("weights")
    return path


def _out_of_the_folder(folder: Path) -> Path:
    """Only the data is a link, and leads elsewhere."""
    (folder / "models").mkdir()
    path = outside(folder / "models")
    (folder / "models/w.bin").rename(folder / "w.bin")
    (folder / "models/w.bin").symlink_to(folder / "w.bin")
    return path


def _to_another_folder(folder: Path) -> Path:
    """Model and data are links into different folders."""
    for place in ("links", "models", "data"):
        (folder / place).mkdir()
    (folder / "links/outside.onnx").symlink_to(outside(folder / "models"))
    for name in ("v.bin", "w.bin"):
        (folder / "links" / name).symlink_to((folder / "models" / name).rename(folder / "data" / name))
    return folder / "links/outside.onnx"


def _by_a_linked_parent(folder: Path) -> Path:
    (folder / "models").mkdir()
    path = outside(folder / "models")
    proto = onnx.load(path, load_external_data=False)
    (folder / "models/data").symlink_to(folder)
    (folder / "models/w.bin").rename(folder / "w.bin")
    proto.graph.initializer[0].external_data[0].value = "data/w.bin"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("lay_out", [_in_a_hub, _beside_the_target, _in_a_linked_folder, _in_the_folder])
def test_links_are_followed_as_by_onnxruntime(tmp_path: Path, lay_out: Callable[[Path], Path]) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "laid-out").mkdir()
    plain, path = load_chain(outside(tmp_path / "plain"), max_blocks=2), lay_out(tmp_path / "laid-out")
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    model = load_chain(path, max_blocks=2)
    assert model.chain.chain_sha256 == plain.chain.chain_sha256
    assert [model.block_model(index) for index in (0, 1)] == [plain.block_model(index) for index in (0, 1)]
    assert model.model_bytes() == plain.model_bytes()


@pytest.mark.parametrize("lay_out", [_out_of_the_folder, _to_another_folder, _by_a_linked_parent])
def test_links_that_leave_the_folder_are_refused(tmp_path: Path, lay_out: Callable[[Path], Path]) -> None:
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_chain(lay_out(tmp_path))


def test_a_file_has_one_fault_whatever_the_number_of_its_tensors(tmp_path: Path) -> None:
    path = outside(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for index in range(3):
        copy = proto.graph.initializer.add()
        copy.CopyFrom(proto.graph.initializer[1])
        copy.name = f"w{index}"
    for location, what in (("../v.bin", "outside"), ("absent.bin", "missing")):
        for tensor in proto.graph.initializer[1:]:
            tensor.external_data[0].value = location
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(ModelError, match=what) as caught:
            load_chain(path)
        (fault,) = caught.value.faults
        assert fault.value == location
        assert "'v' and 3 more" in str(fault)


@pytest.mark.parametrize("location", ["loop.bin", "loop.bin/w.bin", "a\0b", ".", ""])
def test_paths_that_lead_nowhere_are_refused(tmp_path: Path, location: str) -> None:
    path = outside(tmp_path)
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError):
        load_chain(path)


def test_a_file_that_shrinks_after_the_model_was_read(tmp_path: Path) -> None:
    model = load_chain(outside(tmp_path), max_blocks=2)
    os.truncate(tmp_path / "w.bin", 1000)
    with pytest.raises(ModelError, match=r"tensor 'w': external data ends early; found 1000"):
        model.block_model(0)
