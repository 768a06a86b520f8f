"""A synthetic device with known coefficients is the ground truth: it gives the times of blocks, with noise."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from planner.errors import PlannerError, ProfileError
from planner.model.work import KernelWork, Work
from planner.profiling.adapt import AdaptedClass, adapt, estimate_adapted
from planner.profiling.device_probe import DeviceProbe, KernelTime, load_probe, save_probe
from planner.profiling.intervals import half_width, student_t
from planner.profiling.kernel_times import Fitter, KernelTimes, Measurement
from planner.profiling.store import save_profile
from planner.profiling.types import BlockCost, ModelReference, Profile
from tests.profiling.small_chain import SmallModel
from tests.profiling.small_chain import profile as small_profile

CLASS = "made-up"
TRUTH = KernelTimes(
    {
        ("call", "kernels"): 4e-5,
        ("convolution", "kernels"): 2e-5,
        ("convolution", "flop"): 1 / 9e9,
        ("convolution", "activation_bytes"): 1 / 3e9,
        ("depthwise_convolution", "kernels"): 1e-5,
        ("depthwise_convolution", "flop"): 1 / 2e9,
        ("depthwise_convolution", "activation_bytes"): 1 / 2e9,
        ("matrix_product", "kernels"): 1e-5,
        ("matrix_product", "activation_bytes"): 1 / 4e9,
        ("matrix_product", "flop"): 1 / 12e9,
        ("matrix_product", "weight_bytes"): 1 / 2e9,
        ("elementwise", "kernels"): 8e-6,
        ("elementwise", "flop"): 1 / 5e9,
        ("elementwise", "activation_bytes"): 1 / 1.5e9,
    }
)


def launches(rng: np.random.Generator) -> dict[str, float]:
    """Return how many operators of each kind a block of a model has; models differ in this."""
    kinds = ("convolution", "depthwise_convolution", "matrix_product", "elementwise")
    return {kind: float(np.rint(10 ** rng.uniform(0, 1.3))) for kind in kinds}


def work(rng: np.random.Generator, kernels: dict[str, float] | None = None) -> Work:
    def amount(low: float, high: float) -> float:
        return float(10 ** rng.uniform(low, high))

    count = kernels or launches(rng)
    flop = {
        "convolution": amount(7, 9),
        "depthwise_convolution": amount(6, 8),
        "matrix_product": amount(6, 9),
        "elementwise": amount(4, 6),
    }
    return {
        kind: KernelWork(
            kernels=count[kind],
            flop=flop[kind],
            activation_bytes=amount(5, 7),
            weight_bytes=amount(5, 7) if kind == "matrix_product" else 0.0,
        )
        for kind in flop
        if kind == "elementwise" or rng.random() < 0.8
    }


def measured(name: str, rng: np.random.Generator, *, noise: float = 0.0, bias: float = 0.0, blocks: int = 6) -> Profile:
    """Return a profile of a model of random blocks; ``bias`` is the standard deviation of an error of the whole."""
    factor = float(np.exp(bias * rng.standard_normal()))
    kernels = launches(rng)
    works = [work(rng, kernels) for _ in range(blocks)]
    return Profile(
        model=ModelReference(name=name, sha256=name),
        chain_sha256=name,
        device_class=CLASS,
        provenance="measured",
        environment={"provider": "cpu", "threads": 1},
        stage_overhead_s=1e-5,
        fusion_saving_s=(),
        blocks=tuple(
            BlockCost(
                name=f"{name}{index}",
                mean_s=TRUTH.time_s(of_block) * factor * float(np.exp(noise * rng.standard_normal())),
                std_s=0.0,
                weight_bytes=0,
                activation_bytes=0,
                flop=0.0,
                parameters=0,
                load_s=0.0,
                work=dict(of_block),
            )
            for index, of_block in enumerate(works)
        ),
        cut_bytes=(1,) * (blocks + 1),
    )


def device(rng: np.random.Generator, count: int, *, noise: float = 0.0, bias: float = 0.0) -> list[Profile]:
    return [measured(f"model{number}", rng, noise=noise, bias=bias) for number in range(count)]


def probe(rng: np.random.Generator, count: int = 40) -> DeviceProbe:
    kernels = [(f"kernel{number}", work(rng)) for number in range(count)]
    return DeviceProbe(
        device_class=CLASS,
        environment={"provider": "cpu", "threads": 1},
        kernels=tuple(
            KernelTime(name=name, time_s=TRUTH.time_s(of_kernel), std_s=0.0, work=dict(of_kernel))
            for name, of_kernel in kernels
        ),
    )


def logs(adapted: AdaptedClass, profile: Profile) -> list[float]:
    """Return the logarithms of predicted over measured time of a profile's blocks."""
    return [float(np.log(adapted.times.time_s(block.work) / block.mean_s)) for block in profile.blocks]


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_a_fit_recovers_a_device_of_any_speed(unit: float) -> None:
    rng = np.random.default_rng(0)
    works = [work(rng) for _ in range(80)]
    slower = KernelTimes({key: unit * value for key, value in TRUTH.seconds.items()})
    fitted = Fitter([Measurement(str(index), item, slower.time_s(item)) for index, item in enumerate(works)]).fit(
        penalties=[1e-4]
    )
    for item in [work(rng) for _ in range(20)]:
        assert fitted.time_s(item) == pytest.approx(slower.time_s(item), rel=0.02)
    for key in (("convolution", "flop"), ("depthwise_convolution", "flop"), ("matrix_product", "weight_bytes")):
        assert fitted.seconds[key] == pytest.approx(slower.seconds[key], rel=0.1)


def test_few_measurements_with_noise_are_enough_for_useful_estimates() -> None:
    rng = np.random.default_rng(1)
    adapted = adapt(CLASS, device(rng, 6, noise=0.03))
    new = measured("new", rng)
    predicted = sum(adapted.times.time_s(block.work) for block in new.blocks)
    assert predicted == pytest.approx(sum(block.mean_s for block in new.blocks), rel=0.1)
    assert adapted.fit["left_out"] == "model"
    assert set(adapted.fit["errors"]) == {f"model{number}" for number in range(6)}


def test_an_operator_that_was_never_measured_is_told() -> None:
    adapted = adapt(CLASS, device(np.random.default_rng(2), 4))
    estimate = estimate_adapted(SmallModel(), adapted)
    assert any("border" in warning for warning in estimate.environment["warnings"])
    assert estimate.provenance == "estimated"
    assert estimate.stage_overhead_s == pytest.approx(1e-5)


def test_the_error_of_a_model_is_that_of_a_fit_which_did_not_see_it() -> None:
    """A model that is twice as slow as all others do tell is off by about 2 if left out, and by less if seen."""
    rng = np.random.default_rng(3)
    profiles = device(rng, 5)
    odd = profiles[2]
    slow = tuple(block.model_copy(update={"mean_s": 2 * block.mean_s}) for block in odd.blocks)
    profiles[2] = odd.model_copy(update={"blocks": slow})
    adapted = adapt(CLASS, profiles)
    left_out = next(item for item in adapted.left_out if item.name == "model2")
    without = adapt(CLASS, profiles[:2] + profiles[3:])
    unseen, seen = logs(without, profiles[2]), logs(adapted, profiles[2])
    assert left_out.error == pytest.approx(-0.5, abs=0.1)
    assert np.mean(np.abs(seen)) < 0.9 * np.mean(np.abs(left_out.block_errors))
    assert np.mean(np.abs(left_out.block_errors)) == pytest.approx(np.mean(np.abs(unseen)), rel=0.1)


def test_a_model_in_two_sizes_is_left_out_as_one() -> None:
    """The larger one is 1.5 times as slow as its work tells: its small twin must not give that away."""
    rng = np.random.default_rng(13)
    profiles = device(rng, 5)
    larger = [
        block.model_copy(
            update={
                "mean_s": 1.5 * TRUTH.time_s(double),
                "work": double,
            }
        )
        for block in profiles[0].blocks
        for double in [{kind: _doubled(item) for kind, item in block.work.items()}]
    ]
    twin = profiles[0].model_copy(
        update={"blocks": tuple(larger), "model": ModelReference(name="twin", sha256="twin"), "chain_sha256": "twin"}
    )
    smaller = tuple(block.model_copy(update={"mean_s": 1.5 * block.mean_s}) for block in profiles[0].blocks)
    adapted = adapt(CLASS, [profiles[0].model_copy(update={"blocks": smaller}), *profiles[1:], twin])
    assert sorted(map(len, adapted.families)) == [1, 1, 1, 1, 2]
    errors = {item.name: item.error for item in adapted.left_out}
    assert errors["twin"] == pytest.approx(1 / 1.5 - 1, abs=0.08)
    assert errors["model0"] == pytest.approx(1 / 1.5 - 1, abs=0.08)


def _doubled(item: KernelWork) -> KernelWork:
    return KernelWork(
        kernels=item.kernels,
        flop=2 * item.flop,
        activation_bytes=2 * item.activation_bytes,
        weight_bytes=2 * item.weight_bytes,
    )


def test_two_profiles_of_a_model_are_left_out_together() -> None:
    rng = np.random.default_rng(4)
    profiles = device(rng, 4)
    again = profiles[0].model_copy(update={"chain_sha256": "cut otherwise"})
    assert len(adapt(CLASS, [*profiles, again]).left_out) == 4


def test_intervals_cover_at_their_rate() -> None:
    """Over devices and models drawn at random; the error of a model has a common part and one of each block."""
    inside, blocks_inside = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        adapted = adapt(CLASS, device(rng, 8, noise=0.1, bias=0.08))
        for new in [measured("new", rng, noise=0.1, bias=0.08) for _ in range(15)]:
            predicted = sum(adapted.times.time_s(block.work) for block in new.blocks)
            inside.append(abs(np.log(predicted / sum(block.mean_s for block in new.blocks))) <= adapted.width)
            blocks_inside += [abs(error) <= adapted.block_width for error in logs(adapted, new)]
    assert 0.8 <= np.mean(inside) <= 0.98
    assert 0.8 <= np.mean(blocks_inside) <= 0.98


@pytest.mark.parametrize("count", [2, 3, 5, 12, 29, 30, 100])
def test_the_width_of_an_interval_covers_at_its_rate(count: int) -> None:
    rng = np.random.default_rng(count)
    draws = rng.standard_normal((4000, count + 1))
    inside = [abs(row[-1]) <= half_width(row[:-1].tolist()) for row in draws]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_quantiles_of_students_distribution() -> None:
    # Abramowitz and Stegun, table 26.10.
    for degrees, expected in ((1, 6.314), (2, 2.920), (3, 2.353), (5, 2.015), (10, 1.812), (30, 1.697)):
        assert student_t(0.95, degrees) == pytest.approx(expected, abs=2e-3)


def test_an_interval_of_some_blocks_lies_between_those_of_one_and_of_all() -> None:
    rng = np.random.default_rng(5)
    adapted = adapt(CLASS, device(rng, 8, noise=0.2))
    estimate = estimate_adapted(SmallModel(6), adapted)
    interval = estimate.interval
    assert interval is not None
    total_s = sum(block.mean_s for block in estimate.blocks)
    whole, part, one = (estimate.factors(range(count))[1] for count in (6, 3, 1))
    assert whole == pytest.approx(interval.total_s[1] / total_s)
    assert whole < part < one
    first = estimate.blocks[0]
    assert first.interval_s is not None
    assert one == pytest.approx(first.interval_s[1] / first.mean_s, rel=1e-6)
    assert small_profile().factors([0]) == (1.0, 1.0)


def test_a_probe_alone_gives_an_estimate(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    save_probe(probe(rng), tmp_path / "probe.json")
    assert load_probe(tmp_path / "probe.json") == probe(np.random.default_rng(6))
    adapted = adapt(CLASS, [tmp_path / "probe.json"])
    assert adapted.fit["left_out"] == "block"
    assert np.abs(logs(adapted, measured("new", rng))).max() < 0.1


def slower(item: DeviceProbe, factor: float) -> DeviceProbe:
    kernels = tuple(kernel.model_copy(update={"time_s": factor * kernel.time_s}) for kernel in item.kernels)
    return item.model_copy(update={"kernels": kernels})


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_probe_of_a_slow_moment_does_not_shift_estimates(factor: float) -> None:
    """The models, which were measured at other moments, tell how fast the device is otherwise."""
    rng = np.random.default_rng(14)
    adapted = adapt(CLASS, [slower(probe(rng), factor), *device(rng, 8, noise=0.03)])
    errors = [logs(adapted, measured(f"new{number}", rng)) for number in range(5)]
    assert abs(np.median(errors)) < 0.07
    assert adapted.fit["median_error"] < 0.1


def test_measured_models_do_not_make_estimates_worse_than_a_probe_alone() -> None:
    """Models have errors that go the same way in all of their blocks; what is estimated has none."""
    alone: list[float] = []
    together: list[float] = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        probed, models = probe(rng), device(rng, 8, noise=0.1, bias=0.15)
        new = [measured(f"new{number}", rng) for number in range(5)]
        known: list[Profile | DeviceProbe | str | os.PathLike[str]] = [probed]
        for errors, more in ((alone, []), (together, models)):
            adapted = adapt(CLASS, [*known, *more])
            errors += [_whole(adapted, profile) for profile in new]
    assert np.median(np.abs(together)) < np.median(np.abs(alone)) + 0.08
    assert np.mean(np.abs(together) <= np.log(1.15)) >= 0.9


def _whole(adapted: AdaptedClass, profile: Profile) -> float:
    predicted_s = sum(adapted.times.time_s(block.work) for block in profile.blocks)
    return float(np.log(predicted_s / sum(block.mean_s for block in profile.blocks)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device_class": "other"}, "another device class"),
        ({"provenance": "estimated"}, "is an estimate"),
        ({"environment": {"provider": "cuda", "threads": 1}}, "another provider"),
        ({"environment": {"provider": "cpu", "threads": 4}}, "another number of threads"),
        ({"environment": {"provider": "cpu", "threads": 1, "power_mode": "15W"}}, "another power mode"),
    ],
)
def test_what_is_no_measurement_of_the_class(changes: dict[str, object], message: str) -> None:
    first, second = device(np.random.default_rng(7), 2)
    with pytest.raises(ProfileError, match=message):
        adapt(CLASS, [first, second.model_copy(update=changes)])


def test_all_faults_are_told_at_once() -> None:
    profiles = device(np.random.default_rng(7), 3)
    wrong = [profile.model_copy(update={"device_class": "other"}) for profile in profiles]
    with pytest.raises(ProfileError) as caught:
        adapt(CLASS, wrong)
    assert len(caught.value.faults) == 3


def test_a_profile_without_work_was_written_by_an_earlier_version() -> None:
    with pytest.raises(ProfileError, match="earlier versions"):
        adapt("here", [small_profile()])


def test_of_a_folder_only_measurements_count(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no measurements"):
        adapt(CLASS, [tmp_path])
    profiles = device(np.random.default_rng(11), 3)
    guess = profiles[2].model_copy(update={"provenance": "estimated", "device_class": "other"})
    for profile in (*profiles[:2], guess):
        save_profile(profile, tmp_path / f"{profile.model.name}.json")
    save_probe(probe(np.random.default_rng(12)), tmp_path / "device-probe.json")
    adapted = adapt(CLASS, [tmp_path])
    assert len(adapted.models) == 2
    assert adapted.fit["kernels"] == 40


def test_too_few_measurements() -> None:
    with pytest.raises(ProfileError, match="too few measured blocks"):
        adapt(CLASS, [measured("one", np.random.default_rng(8), blocks=3)])


def _not_a_number(document: dict[str, object]) -> None:
    blocks: Sequence[dict[str, object]] = document["blocks"]  # type: ignore[assignment]
    blocks[0]["mean_s"] = float("nan")


def _no_blocks(document: dict[str, object]) -> None:
    document["blocks"] = []


def _negative_work(document: dict[str, object]) -> None:
    blocks: Sequence[dict[str, dict[str, dict[str, float]]]] = document["blocks"]  # type: ignore[assignment]
    blocks[0]["work"]["elementwise"]["flop"] = -1.0


@pytest.mark.parametrize("spoil", [_not_a_number, _no_blocks, _negative_work])
def test_a_file_with_invalid_values(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "measured.json"
    save_profile(measured("one", np.random.default_rng(9)), path)
    document = json.loads(path.read_text())
    spoil(document)  # type: ignore[operator]
    path.write_text(json.dumps(document))
    with pytest.raises(PlannerError, match=r"measured\.json"):
        adapt(CLASS, [path])


def test_a_probe_without_kernels(tmp_path: Path) -> None:
    path = tmp_path / "probe.json"
    save_probe(probe(np.random.default_rng(10)), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kernels": []}))
    with pytest.raises(ProfileError, match=r"probe\.json: kernels"):
        adapt(CLASS, [path])
