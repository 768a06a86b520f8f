"""Write the profile that the scenarios use: MobileNetV2 at 256×256 in six blocks, estimated for a Jetson TX2."""

from __future__ import annotations

import tempfile
from pathlib import Path

from planner.model.architectures import mobilenetv2
from planner.model.load import load_chain
from planner.profiling.device_classes import load_class
from planner.profiling.estimate import estimate
from planner.profiling.store import profile_path, save_profile

NAME = "mobilenetv2-256"
DEVICE_CLASS = "jetson-tx2"
MAX_BLOCKS = 6


def main() -> None:
    """Build the model, estimate its blocks, and write the profile among the shipped ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = mobilenetv2(Path(folder) / f"{NAME}.onnx", size=256)
        chain = load_chain(path, max_blocks=MAX_BLOCKS, name=NAME)
        profile = estimate(chain, load_class(DEVICE_CLASS))
    save_profile(profile, profile_path(Path(__file__).parents[2] / "profiles", DEVICE_CLASS, NAME))


if __name__ == "__main__":
    main()
