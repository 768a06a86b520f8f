"""Profiles of devices that are not at hand: from published figures, or scaled from a measured profile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planner.errors import ProfileError
from planner.profile.assemble import ChainCosts, assemble
from planner.profile.classes import DeviceClass, Workload, fit
from planner.profile.sampling import ChainModel
from planner.profile.types import OperatingPoint, Profile


def estimate(
    chain_model: ChainModel,
    device_class: DeviceClass,
    *,
    works: Sequence[Workload] | None = None,
    operating_points: Sequence[OperatingPoint] = (),
) -> Profile:
    """Estimate a chain's costs on a class by the roofline fitted to its published figures.

    Parameters
    ----------
    chain_model
        The chain and its block models.
    device_class
        The class.
    works
        What :func:`workloads` gives for the chain, where it is known from another class.
    operating_points
        The chain's operating points; they are passed on.

    Returns
    -------
    Profile
        ``provenance: estimated``. ``environment["fit"]`` says by how much a fit to the other figures misses each. What
        no figure tells (stage overhead, load time, spread) is 0.
    """
    chain, roofline = chain_model.chain, fit(device_class)
    works = workloads(chain_model) if works is None else works
    # The fixed part is that of launching layers, so it goes with the number of nodes.
    fixed_s = roofline.fixed_s if device_class.fixed_part == "device" else 0.0
    nodes = sum(block.nodes for block in chain.blocks)
    warnings = []
    if device_class.fixed_part == "program":
        warnings.append(
            "the figures tell nothing of the cost of launching layers: a small model takes longer than this"
        )
    if roofline.grouped_s is None and any(work.grouped_elements for work in works):
        warnings.append("no figure of this class has grouped convolutions: this model's may take far longer")
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
    return assemble(
        chain,
        ChainCosts(
            [
                roofline.variable_s(work) + fixed_s * block.nodes / nodes
                for block, work in zip(chain.blocks, works, strict=True)
            ]
        ),
        device_class=device_class.name,
        provenance="estimated",
        environment=environment,
        operating_points=operating_points,
    )


def workloads(chain_model: ChainModel) -> list[Workload]:
    """Give what each block asks of a device."""
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
    activations = grouped = grouped_flop = 0.0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        made = elements.get(node.output[0], 0)
        activations += made
        if any(item.name == "group" and item.i > 1 for item in node.attribute):
            grouped += made
            grouped_flop += 2 * made * math.prod(weights.get(node.input[1], [0])[1:])
    return Workload(max(flop - grouped_flop, 0.0), grouped, parameters + 2 * activations)


def scale(profile: Profile, by: float, device_class: str) -> Profile:
    """Give the profile of a device that takes ``by`` times as long.

    Raises
    ------
    ProfileError
        ``by`` is not a positive number.
    """
    if not (by > 0 and math.isfinite(by)):
        raise ProfileError("not a ratio of times", where="--by", value=by, expected="a positive number, as in 2.5")
    blocks = [
        block.model_copy(update={"mean_s": block.mean_s * by, "std_s": block.std_s * by, "load_s": block.load_s * by})
        for block in profile.blocks
    ]
    return profile.model_copy(
        update={
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
            "blocks": tuple(blocks),
            "segment_error": None,
        }
    )
