"""Write the profiles that the project ships: ``python -m tests.profile.golden [measured]``.

Estimates follow from the models and the classes' files, so they are golden files. With ``measured`` the models are
also timed on this machine, and stand for the class ``x86-64``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from planner.model.load import ChainModel, load_chain
from planner.model.reference import REFERENCE, build_model
from planner.profile.classes import known_classes, load_class
from planner.profile.estimate import estimate, workloads
from planner.profile.measure import measure
from planner.profile.store import profile_path, save_profile

SHIPPED: Final = Path(__file__).parents[2] / "profiles"
MEASURED_CLASS: Final = "x86-64"
BUDGET_S: Final = 120.0


def models() -> Iterator[tuple[str, ChainModel]]:
    """Build the reference models one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        for name in REFERENCE:
            path = build_model(name, Path(folder) / f"{name}.onnx")
            yield name, load_chain(path)
            path.unlink()


def main(*, measured: bool = False) -> None:
    """Write the estimated profiles, and the measured ones where asked."""
    for name, model in models():
        works = workloads(model)
        for class_name in known_classes():
            profile = estimate(model, load_class(class_name), works=works)
            save_profile(profile, profile_path(SHIPPED, class_name, name))
        if measured:
            profile = measure(model, device_class=MEASURED_CLASS, budget_s=BUDGET_S)
            save_profile(profile, profile_path(SHIPPED, MEASURED_CLASS, name))


if __name__ == "__main__":
    main(measured="measured" in sys.argv[1:])
