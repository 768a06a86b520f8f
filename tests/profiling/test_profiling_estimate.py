from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ProfileError
from planner.model.load import load_chain
from planner.model.reference import build_model
from planner.profiling.device_classes import DeviceClass, Workload, fit, known_classes, load_class
from planner.profiling.estimate import estimate, scale, workloads
from tests.profiling.golden import SHIPPED
from tests.profiling.small_chain import WIDTH, SmallModel, profile


def synthetic(fixed_s: float, flop_per_s: float, grouped_s: float) -> DeviceClass:
    """Return a class whose figures follow the roofline model exactly."""
    figures = []
    for number, (flop, grouped, parameters) in enumerate(
        [(1e9, 0, 1e6), (5e9, 1e6, 2e6), (2e10, 0, 1e6), (8e9, 3e6, 1e6)]
    ):
        figures.append(
            {
                "model": f"m{number}",
                "flop": flop,
                "grouped_elements": grouped,
                "parameters": parameters,
                "time_s": fixed_s + flop / flop_per_s + grouped * grouped_s,
                "source": "here",
            }
        )
    document = {
        "schema": "planner/device-class/v1",
        "name": "made-up",
        "device": "none",
        "provider": "tensorrt",
        "precision": "float16",
        "power_mode": "none",
        "peak_flop_per_s": 1e13,
        "peak_bytes_per_s": 1e11,
        "fixed_part": "device",
        "sources": {"here": {"title": "t", "url": "u"}},
        "figures": figures,
    }
    return DeviceClass.model_validate(document)


@given(st.floats(0, 1e-2), st.floats(1e10, 9e11), st.floats(0, 1e-8))
def test_the_fit_recovers_the_parameters_of_the_figures(fixed_s: float, flop_per_s: float, grouped_s: float) -> None:
    roofline = fit(synthetic(fixed_s, flop_per_s, grouped_s))
    assert roofline.fixed_s == pytest.approx(fixed_s, abs=1e-8)
    assert roofline.flop_per_s == pytest.approx(flop_per_s, rel=1e-4)
    assert roofline.grouped_s == pytest.approx(grouped_s, abs=1e-13)
    assert max(map(abs, roofline.errors)) < 1e-4


def test_a_figure_that_does_not_fit_the_others_shows_as_error() -> None:
    device_class = synthetic(0.0, 1e11, 0.0)
    odd = device_class.figures[2].model_copy(update={"time_s": device_class.figures[2].time_s / 2})
    figures = (*device_class.figures[:2], odd, *device_class.figures[3:])
    roofline = fit(device_class.model_copy(update={"figures": figures}))
    assert roofline.errors[2] == pytest.approx(1.0)


def test_memory_bandwidth_limits_blocks_with_few_operations() -> None:
    roofline = fit(synthetic(0, 1e11, 0))
    assert roofline.variable_s(Workload(1e6, 0, 1e9)) == pytest.approx(2 * 1e9 / 1e11)
    assert roofline.variable_s(Workload(1e11, 0, 1e3)) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-tx2", "jetson-xavier-nx", "jetson-orin-nano"])
def test_shipped_classes_cite_and_fit_their_figures(name: str) -> None:
    device_class = load_class(name)
    roofline = fit(device_class)
    assert device_class.name == name
    assert all(source.url.startswith("https://") for source in device_class.sources.values())
    assert 0 < roofline.flop_per_s <= device_class.peak_flop_per_s
    assert float(np.median(np.abs(roofline.errors))) < 0.25
    assert name in known_classes()


def test_a_published_time_is_met_by_the_same_model() -> None:
    # The error of the fit bounds the distance between the estimate of a whole model and its figure.
    device_class = load_class("jetson-nano")
    figure = next(figure for figure in device_class.figures if figure.model == "resnet50")
    work = Workload(figure.flop, 0, figure.parameters + 2 * figure.activations)
    roofline = fit(device_class)
    assert roofline.fixed_s + roofline.variable_s(work) == pytest.approx(figure.time_s, rel=0.1)


def test_an_estimate_is_marked_as_such() -> None:
    model = SmallModel()
    estimated = estimate(model, synthetic(3e-3, 1e11, 0), operating_points=())
    assert estimated.provenance == "estimated"
    assert estimated.device_class == "made-up"
    assert estimated.chain_sha256 == model.chain.chain_sha256
    assert estimated.segment_error is None
    assert estimated.environment["fit"]["figures"] == 4
    assert estimated.environment["sources"] == ["u"]
    assert estimated.environment["warnings"] == []
    # There is almost nothing to compute, so only the fixed part remains, spread over the nodes.
    assert sum(block.mean_s for block in estimated.blocks) == pytest.approx(3e-3, rel=1e-2)


def test_the_fixed_part_of_a_program_is_left_out() -> None:
    device_class = synthetic(3e-3, 1e11, 0).model_copy(update={"fixed_part": "program"})
    estimated = estimate(SmallModel(), device_class)
    assert any("launching" in warning for warning in estimated.environment["warnings"])
    assert sum(block.mean_s for block in estimated.blocks) < 1e-6


def test_workloads_of_blocks() -> None:
    first = workloads(SmallModel())[0]
    assert first == Workload(2 * WIDTH**2, 0, WIDTH**2 + 2 * WIDTH)


def test_grouped_convolutions_are_counted_by_their_output_elements(tmp_path: Path) -> None:
    model = load_chain(build_model("mobilenetv2-96", tmp_path / "m.onnx"), max_blocks=1)
    (work,) = workloads(model)
    depthwise = 9 * 2 * work.grouped_elements
    assert work.grouped_elements > 0
    assert work.flop + depthwise == pytest.approx(model.chain.blocks[0].flop)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("peak_flop_per_s: -1", "peak_flop_per_s"),
        ("peak_flop_per_s: .nan", "peak_flop_per_s"),
        ("peak_flop_per_s: .inf", "peak_flop_per_s"),
        ("peak_flop_per_s: true", "peak_flop_per_s"),
        ('peak_flop_per_s: "1.5e12"', "peak_flop_per_s"),
        (f"peak_flop_per_s: {'9' * 5000}", r"class\.yaml"),
        ("colour: red", "colour"),
        ("figures: [{model: m, flop: 1, parameters: 1, time_s: 1, source: nowhere}]", "at least 3"),
    ],
)
def test_an_invalid_class(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "class.yaml"
    key = change.partition(":")[0]
    lines = (SHIPPED / "classes" / "jetson-orin-nano.yaml").read_text().splitlines()
    if key == "figures":
        lines = lines[: lines.index("figures:")]
    path.write_text("\n".join([*(line for line in lines if not line.startswith(key)), change]))
    with pytest.raises(ProfileError, match=message):
        load_class(str(path))


def test_a_figure_without_source(tmp_path: Path) -> None:
    path = tmp_path / "class.yaml"
    text = (SHIPPED / "classes" / "jetson-orin-nano.yaml").read_text()
    path.write_text(text.replace("0.00491, source: ultralytics", "0.00491, source: hearsay"))
    with pytest.raises(ProfileError, match="figure refers to an unknown source; found 'hearsay'"):
        load_class(str(path))


@pytest.mark.parametrize("text", ["a: [", "- 1"])
def test_not_a_class(tmp_path: Path, text: str) -> None:
    path = tmp_path / "class.yaml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"class\.yaml"):
        load_class(str(path))


def test_an_unknown_class_names_the_known_ones() -> None:
    with pytest.raises(ProfileError, match=r"no such device class; found 'jetson-moon'; expected .*jetson-nano"):
        load_class("jetson-moon")


def test_scaling_multiplies_all_times_and_nothing_else() -> None:
    slow = scale(profile(), 3.0, "slow")
    assert slow.provenance == "estimated"
    assert slow.segment_error is None
    assert slow.stage_overhead_s == pytest.approx(3 * profile().stage_overhead_s)
    for before, after in zip(profile().blocks, slow.blocks, strict=True):
        assert after.mean_s == pytest.approx(3 * before.mean_s)
        assert after.weight_bytes == before.weight_bytes
    assert slow.operating_points == profile().operating_points
    assert slow.environment["scaled_from"] == "here"


@pytest.mark.parametrize("by", [0.0, -1.0, float("inf"), float("nan")])
def test_not_a_ratio(by: float) -> None:
    with pytest.raises(ProfileError, match="--by"):
        scale(profile(), by, "slow")


@pytest.mark.parametrize("by", [1e12, 1e-13])
def test_a_scaled_profile_can_be_read_back_or_is_refused(by: float) -> None:
    with pytest.raises(ProfileError, match=r"profile of small on new: blocks\[0\]\.mean_s: out of range"):
        scale(profile(), by, "new")


def test_an_estimate_has_an_interval_that_follows_from_the_errors_of_the_figures() -> None:
    # The figures of these classes agree better in this order.
    widths = []
    for name in ("jetson-nano", "jetson-xavier-nx", "jetson-orin-nano"):
        estimated = estimate(SmallModel(), load_class(name))
        assert estimated.interval is not None
        total_s = sum(block.mean_s for block in estimated.blocks)
        low_s, high_s = estimated.interval.total_s
        assert low_s < total_s < high_s
        widths.append(high_s / low_s)
    assert widths == sorted(widths, reverse=True)


def test_scaling_an_estimate_scales_its_interval() -> None:
    before = estimate(SmallModel(), load_class("jetson-tx2"))
    slow = scale(before, 2.0, "slow")
    assert before.interval is not None
    assert slow.interval is not None
    assert slow.interval.total_s == pytest.approx([2 * end_s for end_s in before.interval.total_s])
    assert slow.factors(range(3)) == pytest.approx(before.factors(range(3)))
