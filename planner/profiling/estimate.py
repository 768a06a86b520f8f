"""Estimated profiles of unavailable devices: from published figures, or scaled from a measured profile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planner.errors import ProfileError
from planner.profiling.assemble import SHORTEST_S, ChainCosts, assemble, checked
from planner.profiling.device_classes import DeviceClass, Workload, fit
from planner.profiling.intervals import COVERAGE, around, half_width
from planner.profiling.sampling import ProfiledModel
from planner.profiling.types import EstimateInterval, OperatingPoint, Profile


def estimate(
    chain_model: ProfiledModel,
    device_class: DeviceClass,
    *,
    works: Sequence[Workload] | None = None,
    operating_points: Sequence[OperatingPoint] = (),
) -> Profile:
    """Estimate a chain's costs on a device class by the roofline model fitted to its published figures.

    Parameters
    ----------
    chain_model
        The chain and its block models.
    device_class
        The device class.
    works
        Result of :func:`workloads` for the chain, if already computed for another class.
    operating_points
        The chain's operating points, copied to the profile.

    Returns
    -------
    Profile
        Profile with ``provenance: estimated``. ``environment["fit"]`` holds the errors of the figures when predicted
        from the others; the intervals follow from them. Figures are of whole models: blocks get the same interval,
        relative to their time, although their errors may be larger. Values that figures do not provide (stage overhead,
        load time, standard deviation) are 0.
    """
    chain, roofline = chain_model.chain, fit(device_class)
    works = workloads(chain_model) if works is None else works
    width = half_width(np.log1p(np.array(roofline.errors)))
    # The fixed part is the cost of launching layers, so it is proportional to the number of nodes.
    fixed_s = roofline.fixed_s if device_class.fixed_part == "device" else 0.0
    nodes = sum(block.nodes for block in chain.blocks)
    warnings = []
    if device_class.fixed_part == "program":
        warnings.append(
            "the figures do not include the cost of launching layers: small models take longer than estimated"
        )
    if roofline.grouped_s is None and any(work.grouped_elements for work in works):
        warnings.append(
            "no figure of this class has grouped convolutions: those of this model may take far longer than estimated"
        )
    errors = np.abs(roofline.errors)
    environment = {
        "device": device_class.device,
        "provider": device_class.provider,
        "precision": device_class.precision,
        "power_mode": device_class.power_mode,
        "fit": {
            "figures": len(errors),
            "median_error": float(np.median(errors)),
            "worst_error": float(errors.max()),
            "efficiency": roofline.flop_per_s / device_class.peak_flop_per_s,
        },
        "sources": [source.url for source in device_class.sources.values()],
        "warnings": warnings,
    }
    mean_s = [
        max(roofline.variable_s(work) + fixed_s * block.nodes / nodes, SHORTEST_S)
        for block, work in zip(chain.blocks, works, strict=True)
    ]
    return assemble(
        chain_model,
        ChainCosts(
            mean_s,
            intervals_s=[around(time_s, width) for time_s in mean_s],
            interval=EstimateInterval(coverage=COVERAGE, total_s=around(sum(mean_s), width)),
        ),
        device_class=device_class.name,
        provenance="estimated",
        environment=environment,
        operating_points=operating_points,
    )


def workloads(chain_model: ProfiledModel) -> list[Workload]:
    """Return the workload of each block."""
    return [
        _workload(chain_model.block_model(index), block.flop, block.parameters)
        for index, block in enumerate(chain_model.chain.blocks)
    ]


def _workload(model: bytes, flop: float, parameters: int) -> Workload:
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    elements = {
        value.name: math.prod(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in [*graph.value_info, *graph.output]
    }
    weights = {weight.name: weight.dims for weight in graph.initializer}
    activations = grouped_elements = grouped_flop = 0.0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        output_elements = elements.get(node.output[0], 0)
        activations += output_elements
        if any(item.name == "group" and item.i > 1 for item in node.attribute):
            grouped_elements += output_elements
            grouped_flop += 2 * output_elements * math.prod(weights.get(node.input[1], [0])[1:])
    return Workload(max(flop - grouped_flop, 0.0), grouped_elements, parameters + 2 * activations)


def scale(profile: Profile, by: float, device_class: str) -> Profile:
    """Return the profile of a device that takes ``by`` times as long.

    Raises
    ------
    ProfileError
        If ``by`` is not a positive number, or a time is out of its range.
    """
    if not (by > 0 and math.isfinite(by)):
        raise ProfileError(
            "not a valid ratio of times", where="--by", value=by, expected="a positive number, as in 2.5"
        )
    contents = profile.model_dump(by_alias=True) | {
        "device_class": device_class,
        "provenance": "estimated",
        "environment": {
            "scaled_from": profile.device_class,
            "scaled_by": by,
            "precision": profile.environment.get("precision", "unknown"),
            "warnings": [],
        },
        "stage_overhead_s": profile.stage_overhead_s * by,
        "fusion_saving_s": tuple(saving_s * by for saving_s in profile.fusion_saving_s),
        "segment_error": None,
        "fusion_error": None,
    }
    for block in contents["blocks"]:
        block.update({key: block[key] * by for key in ("mean_s", "std_s", "load_s")}, work={})
        block["interval_s"] = _scaled(block["interval_s"], by)
    if profile.batches is not None:
        contents["batches"]["error"] = None
    if profile.interval is not None:
        contents["interval"]["total_s"] = _scaled(profile.interval.total_s, by)
    return checked(contents, f"profile of {profile.model.name} on {device_class}")


def _scaled(interval_s: tuple[float, float] | None, by: float) -> tuple[float, float] | None:
    return interval_s and (interval_s[0] * by, interval_s[1] * by)
