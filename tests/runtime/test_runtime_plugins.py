"""Plug-in execution providers, with those that are installed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from planner.errors import RuntimeSessionError
from planner.profiling.measure import measure
from planner.runtime import openvino
from planner.runtime.difference import compare
from planner.runtime.placement import Placement, placement
from planner.runtime.plugins import installed
from planner.runtime.providers import find_provider, import_onnxruntime, usable_providers, with_options
from planner.runtime.session import BlockSession
from tests.profiling.small_chain import SmallModel

WIDTH = 256
INPUTS = {"x": np.random.default_rng(1).standard_normal((WIDTH, WIDTH)).astype(np.float32)}


def _usable() -> list[str]:
    """Return the plug-ins that have a device on this machine."""
    found = []
    for name in installed():
        try:
            find_provider(name)
        except RuntimeSessionError:
            continue
        found.append(name)
    return found


USABLE = _usable()
needs_one = pytest.mark.skipif(not USABLE, reason="no onnxruntime-ep-NAME with a device on this machine is installed")
needs_openvino = pytest.mark.skipif(
    "openvino" not in USABLE, reason="onnxruntime-ep-openvino is not installed, or has no device on this machine"
)


def model(operator: str = "Erf", domain: str = "") -> bytes:
    """Return ``y = relu(operator(relu(x w)) w)``."""
    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.sqrt(WIDTH)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH, WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node(operator, ["b"], ["c"], domain=domain),
            helper.make_node("MatMul", ["c", "w"], ["d"]),
            helper.make_node("Relu", ["d"], ["y"]),
        ],
        "g", value[:1], value[1:], [helper.make_tensor("w", TensorProto.FLOAT, [WIDTH, WIDTH], weights.ravel())],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def test_packages_of_plug_ins_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, package in (
        ("onnxruntime_ep_nv_quick_cu12-1.2.dist-info", "onnxruntime-ep-nv-quick-cu12"),
        ("onnxruntime_ep_odd-2.0.dist-info", "onnxruntime_ep_odd"),
        ("onnxruntime_ep_empty-3.0.dist-info", "onnxruntime-ep-empty"),
        ("onnxruntime_extensions-4.0.dist-info", "onnxruntime-extensions"),
    ):
        info = tmp_path / folder
        info.mkdir()
        version = folder.removesuffix(".dist-info").rpartition("-")[2]
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        module = tmp_path / package.replace("-", "_")
        module.mkdir()
        (module / "__init__.py").touch()
        (info / "RECORD").write_text("" if "empty" in folder else f"{module.name}/__init__.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = {name: plugin for name, plugin in installed.__wrapped__().items() if name not in installed()}
    assert {name: (plugin.package, plugin.version, plugin.module) for name, plugin in found.items()} == {
        "odd": ("onnxruntime-ep-odd", "2.0", "onnxruntime_ep_odd"),
        "quick": ("onnxruntime-ep-nv-quick-cu12", "1.2", "onnxruntime_ep_nv_quick_cu12"),
    }


def outputs(provider: str, of: bytes) -> dict[str, NDArray[np.float32]]:
    return BlockSession(of, provider=provider).run(INPUTS)


def placed(provider: str, of: bytes, folder: Path) -> Placement:
    session = BlockSession(of, provider=provider, trace=folder / "trace")
    for _ in range(4):
        session.run(INPUTS)
    found = placement(session.end_trace())
    assert found is not None
    return found


@needs_one
@pytest.mark.parametrize("name", USABLE)
def test_a_plugin_computes_the_model_itself_and_every_time(name: str, tmp_path: Path) -> None:
    expected = BlockSession(model(), optimise=False).run(INPUTS)
    wanted = find_provider(name).execution_providers[0]
    for _ in range(2):  # once it is registered, onnxruntime offers its name, which would run on the CPU
        assert compare(outputs(name, model()), expected).max_rel_error < 0.05
        assert placed(name, model(), tmp_path).shares.get(wanted, 0.0) > 0.5


@needs_one
@pytest.mark.parametrize("name", USABLE)
def test_a_plugin_is_listed_and_a_device_that_it_lacks_is_refused(name: str) -> None:
    assert name in usable_providers()
    plugin = find_provider(name).plugin
    assert plugin is not None
    kinds = {device.device.type.name for device in plugin.devices()}
    assert len(kinds) == 1
    (kind,) = kinds
    assert find_provider(with_options(name, [f"device={kind}"])).plugin == plugin
    with pytest.raises(RuntimeSessionError, match="offers no QUANTUM"):
        find_provider(with_options(name, ["device=QUANTUM"]))


@needs_openvino
def test_what_openvino_leaves_to_the_cpu_is_measured_and_named(tmp_path: Path) -> None:
    wanted = find_provider("openvino")
    whole = placed("openvino", model(), tmp_path)
    assert whole.warnings(wanted) == []
    part = placed("openvino", model("Inverse", "com.microsoft"), tmp_path)
    assert sum(part.shares.values()) == pytest.approx(1, abs=1e-3)
    (told,) = part.warnings(wanted)
    assert "CPUExecutionProvider: Inverse" in told
    none = placed("cpu", model(), tmp_path)
    (told,) = none.warnings(wanted)
    assert "takes no part" in told


@needs_openvino
def test_full_precision_is_a_variant_with_its_own_rounding() -> None:
    expected = BlockSession(model(), optimise=False).run(INPUTS)
    exact = find_provider("openvino").exact
    assert exact is not None
    assert compare(outputs(exact, model()), expected).max_rel_error < 1e-4
    with pytest.raises(RuntimeSessionError, match="not the properties"):
        outputs(with_options("openvino", ["load_config={CPU"]), model())


@needs_openvino
def test_a_profile_on_openvino_has_its_rounding_and_its_placement() -> None:
    profile = measure(SmallModel(), device_class="here", provider="openvino", rounds=3)
    environment = profile.environment
    assert environment["provider"] == "openvino"
    assert environment["precision"] == find_provider("openvino").precision
    assert environment["placement"] == {"OpenVINOExecutionProvider": 1.0}
    assert 0 <= (profile.whole_error or 0.0) < 0.05
    assert environment["memory"] == "computed"


@needs_openvino
def test_a_model_that_a_plugin_rejects_is_refused_with_the_node() -> None:
    with pytest.raises(RuntimeSessionError, match=r"rejects the model.*node.*MatMul"):
        BlockSession(model("Normalizer", "ai.onnx.ml"), provider="openvino")


def test_threads_are_a_property_of_openvinos_processors() -> None:
    assert openvino.with_threads({}, 3) == {"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "3"}}'}
    own = {"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "1", "X": "y"}, "GPU": {}}', "other": "1"}
    assert openvino.with_threads(own, 3) == own
    assert openvino.with_threads({"load_config": "/etc/openvino.json"}, 3) == {"load_config": "/etc/openvino.json"}


def test_options_are_part_of_a_providers_name() -> None:
    assert with_options("cpu", []) == "cpu"
    name = with_options("cpu", ["a=1", "b=x=y & {z}"])
    provider = find_provider(name)
    assert (provider.name, provider.options) == (name, {"a": "1", "b": "x=y & {z}"})
    for wrong in ("a", "=1", "a="):
        with pytest.raises(RuntimeSessionError, match="not an option"):
            with_options("cpu", [wrong])


def test_a_plugin_that_is_not_installed_is_unknown_and_an_old_onnxruntime_has_none() -> None:
    with pytest.raises(RuntimeSessionError, match="onnxruntime-ep-NAME"):
        find_provider("no-such-provider")
    built_in = {"cpu", *installed()}
    offered = import_onnxruntime().get_available_providers()
    assert built_in <= set(usable_providers(offered)) | {"openvino"}
