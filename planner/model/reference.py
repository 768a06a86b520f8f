"""Reference models: real architectures with seeded random weights, built without a training framework.

These models are suitable for studies of cost, memory, tensor sizes at the cuts and numerics, but not of accuracy. Their
parameter and multiply-accumulate counts equal those published for the architecture; tests verify this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from planner.errors import ModelError
from planner.files import StrPath


@dataclass(frozen=True)
class ReferenceModel:
    """An architecture that can be built.

    Parameters
    ----------
    summary
        Description in one line.
    input_shape
        Shape of the only input.
    parameters
        Number of weights, without running statistics of normalisations.
    macs
        Multiply-accumulates of the convolutions and matrix products for one sample.
    build
        Function that writes the model to a path.
    """

    summary: str
    input_shape: tuple[int, ...]
    parameters: int
    macs: int
    build: Callable[[Path], Path]


def _mobilenetv2(path: Path, *, size: int) -> Path:
    from planner.model.architectures import mobilenetv2

    return mobilenetv2(path, size=size)


def _resnet50(path: Path) -> Path:
    from planner.model.architectures import resnet50

    return resnet50(path)


def _resnet56(path: Path, *, exits: bool) -> Path:
    from planner.model.architectures import resnet56

    return resnet56(path, exits=exits)


def _gpt2(path: Path, *, layers: int, width: int, heads: int, vocabulary: int, tokens: int) -> Path:
    from planner.model.architectures import gpt2

    return gpt2(path, layers=layers, width=width, heads=heads, vocabulary=vocabulary, tokens=tokens)


REFERENCE: Mapping[str, ReferenceModel] = MappingProxyType(
    {
        "mobilenetv2": ReferenceModel(
            "MobileNetV2, 224×224 (Sandler et al., 2018, doi:10.1109/CVPR.2018.00474)",
            (1, 3, 224, 224),
            3_504_872,
            300_774_272,
            partial(_mobilenetv2, size=224),
        ),
        "mobilenetv2-96": ReferenceModel(
            "MobileNetV2, 96×96: small activations, for quick trials",
            (1, 3, 96, 96),
            3_504_872,
            56_289_152,
            partial(_mobilenetv2, size=96),
        ),
        "resnet50": ReferenceModel(
            "ResNet-50 with the stride in the 3×3 convolutions, 224×224 (He et al., 2016, doi:10.1109/CVPR.2016.90)",
            (1, 3, 224, 224),
            25_557_032,
            4_089_184_256,
            _resnet50,
        ),
        "resnet56": ReferenceModel(
            "ResNet-56 for 32×32 images, shortcuts without weights (He et al., 2016, section 4.2)",
            (1, 3, 32, 32),
            853_018,
            125_485_696,
            partial(_resnet56, exits=False),
        ),
        "resnet56-exits": ReferenceModel(
            "ResNet-56 with a classifier after each of its three stages",
            (1, 3, 32, 32),
            853_518,
            125_486_176,
            partial(_resnet56, exits=True),
        ),
        "gpt2": ReferenceModel(
            "GPT-2 of 124 M parameters, 64 tokens, no cache, tied embeddings (Radford et al., 2019)",
            (1, 64),
            124_439_808,
            7_981_547_520,
            partial(_gpt2, layers=12, width=768, heads=12, vocabulary=50257, tokens=64),
        ),
        "gpt2-small": ReferenceModel(
            "GPT-2 reduced to 3 layers, width 128 and 1000 tokens of vocabulary, for quick trials",
            (1, 32),
            854_144,
            23_756_800,
            partial(_gpt2, layers=3, width=128, heads=4, vocabulary=1000, tokens=32),
        ),
    }
)


def build_model(name: str, path: StrPath) -> Path:
    """Write the reference model ``name`` to ``path``; the bytes are reproducible.

    Raises
    ------
    ModelError
        If the name is unknown.
    """
    if name not in REFERENCE:
        raise ModelError("unknown reference model", value=name, expected=f"one of {', '.join(REFERENCE)}")
    return REFERENCE[name].build(Path(path))
