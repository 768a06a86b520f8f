"""Write the profiles shipped with the project: ``python -m tests.profiling.golden [measured] [MODEL ...]``.

Estimates depend only on the models and the class files, so they are golden files. With ``measured``, the models are
also timed on this machine, as profiles of the class ``x86-64``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from planner.model.chain import Chain
from planner.model.load import ChainModel, load_chain
from planner.model.reference import REFERENCE, build_model
from planner.profiling.device_classes import known_classes, load_class
from planner.profiling.estimate import estimate, workloads
from planner.profiling.measure import measure
from planner.profiling.operating_points import operating_point, pareto_optimal
from planner.profiling.store import profile_path, save_profile
from planner.profiling.types import OperatingPoint

SHIPPED: Final = Path(__file__).parents[2] / "profiles"
TRAINED: Final = Path(__file__).parents[2] / "models/resnet56-exits-fashion.onnx"
MEASURED_CLASS: Final = "x86-64"
BUDGET_S: Final = 120.0


def models() -> Iterator[tuple[str, ChainModel]]:
    """Yield the trained model, then build and yield each reference model."""
    yield TRAINED.stem, load_chain(TRAINED)
    with tempfile.TemporaryDirectory() as folder:
        for name in REFERENCE:
            path = build_model(name, Path(folder) / f"{name}.onnx")
            yield name, load_chain(path)
            path.unlink()


def trained_points(chain: Chain) -> tuple[OperatingPoint, ...]:
    """Return the trained model's operating points, one threshold for both exits, from all 10,000 test images."""
    results = json.loads(TRAINED.with_suffix(".json").read_text())
    return pareto_optimal(
        operating_point(chain, row["thresholds"], row["accuracy"], row["left"]) for row in results["test"]["curve"]
    )


def main(*names: str, measured: bool = False) -> None:
    """Write the estimated profiles, and on request the measured ones, of the named models or of all models."""
    for name, model in models():
        if names and name not in names:
            continue
        works = workloads(model)
        points = trained_points(model.chain) if name == TRAINED.stem else ()
        for class_name in known_classes():
            profile = estimate(model, load_class(class_name), works=works, operating_points=points)
            save_profile(profile, profile_path(SHIPPED, class_name, name))
        if measured:
            profile = measure(model, device_class=MEASURED_CLASS, budget_s=BUDGET_S, operating_points=points)
            save_profile(profile, profile_path(SHIPPED, MEASURED_CLASS, name))


if __name__ == "__main__":
    arguments = set(sys.argv[1:])
    main(*(arguments - {"measured"}), measured="measured" in arguments)
