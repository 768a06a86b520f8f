"""Train ResNet-56 with two early exits on Fashion-MNIST; write its ONNX file and what was measured of it.

The network is the reference model ``resnet56-exits``: its file gives the initial weights, and takes the trained ones.
PyTorch is needed for the training alone. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch  # type: ignore[import-not-found]  # needed here alone, so no dependency of the project
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional  # type: ignore[import-not-found]  # as torch

from models.exit_accuracy import OUTPUTS, SLICE_SAMPLES, Answers, measure, write_slice
from models.fashion_mnist import CENTRED, place, read_images
from planner.files import write_bytes_atomic, write_text_atomic
from planner.model.reference import build_model

Tensor = Any
REFERENCE: Final = "resnet56-exits"
HERE: Final = Path(__file__).parent
SEED: Final = 0
BATCH: Final = 128
LEARNING_RATE: Final = 0.1
WEIGHT_DECAY: Final = 5e-4
LOSS_WEIGHTS: Final = (0.3, 0.3, 1.0)
HEADS: Final = ("exit1", "exit2", "classifier")
STEPS_PER_CHECKPOINT: Final = 20

log = logging.getLogger(__name__)


def initial_weights() -> dict[str, Tensor]:
    """Give the weights and running statistics of the reference model, by name."""
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load(build_model(REFERENCE, Path(folder) / "model.onnx"))
    arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    weights = {name: torch.from_numpy(array) for name, array in arrays.items() if array.dtype == np.float32}
    for name, weight in weights.items():
        if weight.ndim == 4:
            weights[name] = weight.contiguous(memory_format=torch.channels_last)
        weights[name].requires_grad_(not name.endswith((".mean", ".var")))
    return weights


def forward(weights: Mapping[str, Tensor], images: Tensor, *, training: bool) -> list[Tensor]:
    """Compute the logits of both exits and of the last classifier, each of shape (n, 10).

    While ``training``, normalisation uses the batch's statistics and moves the running ones.
    """

    def conv_norm(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        x = functional.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        mean, var, gamma, beta = (weights[f"{norm}.{key}"] for key in ("mean", "var", "gamma", "beta"))
        return functional.batch_norm(x, mean, var, gamma, beta, training=training)

    x = functional.relu(conv_norm(images, "stem", "stem.bn"))
    logits = []
    for stage, head in enumerate(HEADS):
        for repeat in range(9):
            name, stride = f"stage{stage}.{repeat}", 2 if stage > 0 and repeat == 0 else 1
            y = functional.relu(conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride))
            y = conv_norm(y, f"{name}.conv2", f"{name}.bn2")
            if stride == 2:
                new = x.shape[1] // 2
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new, new))
            x = functional.relu(x + y)
        logits.append(functional.linear(x.mean((2, 3)), weights[f"{head}.weight"], weights[f"{head}.bias"]))
    return logits


def batches(
    images: NDArray[np.uint8], labels: NDArray[np.int64], first: int, end: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Draw shifted and mirrored images for steps ``first`` to ``end`` - 1; a step draws the same in any run."""
    for step in range(first, end):
        epoch, place_in_epoch = divmod(step, len(images) // BATCH)
        order = np.random.default_rng([SEED, epoch]).permutation(len(images))
        chosen = order[place_in_epoch * BATCH :][:BATCH]
        rng = np.random.default_rng([SEED, epoch, place_in_epoch])
        mirrored = rng.random(BATCH) < 0.5
        drawn = np.where(mirrored[:, None, None], images[chosen, :, ::-1], images[chosen])
        placed = place(drawn, rng.integers(0, 2 * CENTRED + 1, (BATCH, 2)))
        yield (
            step,
            torch.from_numpy(placed).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(labels[chosen]),
        )


class Gradients:
    """Computes gradients on several threads, each with its part of the batch.

    Threads within an operator would meet after every operator, which a machine with other work punishes; these meet
    once a step. Normalisation sees a part alone, and the running statistics are those of the first parts.

    Parameters
    ----------
    weights
        All weights and running statistics, by name.
    parts
        Number of threads.
    """

    def __init__(self, weights: Mapping[str, Tensor], parts: int) -> None:
        self.trained = [weight for weight in weights.values() if weight.requires_grad]
        still = {name: weight for name, weight in weights.items() if not weight.requires_grad}
        self._weights = [weights] + [
            {**weights, **{name: weight.clone() for name, weight in still.items()}} for _ in range(1, parts)
        ]
        self._pool = ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=(1,))

    def step(self, images: Tensor, labels: Tensor) -> NDArray[np.float64]:
        """Set the gradients of ``trained``; gives the share of right answers of each classifier."""
        parts = len(self._weights)
        found = list(self._pool.map(self._part, self._weights, images.chunk(parts), labels.chunk(parts)))
        for weight, *gradients in zip(self.trained, *(gradients for gradients, _ in found), strict=True):
            weight.grad = sum(gradients) / parts
        return np.asarray(np.mean([right for _, right in found], axis=0))

    def _part(self, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> tuple[list[Tensor], list[float]]:
        logits = forward(weights, images, training=True)
        losses = [functional.cross_entropy(rows, labels) for rows in logits]
        loss = sum(factor * loss for factor, loss in zip(LOSS_WEIGHTS, losses, strict=True))
        right = [float((rows.argmax(1) == labels).float().mean()) for rows in logits]
        return torch.autograd.grad(loss, self.trained), right


def train(
    images: NDArray[np.uint8], labels: NDArray[np.int64], *, steps: int, threads: int, checkpoint: Path
) -> dict[str, Tensor]:
    """Train by stochastic gradient descent with a one-cycle learning rate; goes on from ``checkpoint`` if it exists."""
    weights = initial_weights()
    gradients = Gradients(weights, threads)
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in gradients.trained if weight.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [weight for weight in gradients.trained if weight.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, cycle_momentum=False)
    first = read_checkpoint(checkpoint, weights, optimiser, schedule)
    begin_s, right = time.perf_counter(), []
    for step, batch, answers in batches(images, labels, first, steps):
        right.append(gradients.step(batch, answers))
        optimiser.step()
        schedule.step()
        done = step + 1
        if done % STEPS_PER_CHECKPOINT == 0 or done == steps:
            write_checkpoint(checkpoint, done, weights, optimiser, schedule)
            images_per_s = (done - first) * BATCH / (time.perf_counter() - begin_s)
            accuracies = " ".join(f"{share:.1%}" for share in np.mean(right, axis=0))
            log.info("step %d of %d, %.0f images/s, right in training: %s", done, steps, images_per_s, accuracies)
            right.clear()
    return weights


def read_checkpoint(path: Path, weights: Mapping[str, Tensor], optimiser: Any, schedule: Any) -> int:
    """Restore what :func:`write_checkpoint` wrote, if anything; gives the number of steps done."""
    if not path.exists():
        return 0
    state = torch.load(path)
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state["weights"][name])
    return int(state["steps"])


def write_checkpoint(path: Path, steps: int, weights: Mapping[str, Tensor], optimiser: Any, schedule: Any) -> None:
    """Write all that training needs to go on after ``steps`` steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    state = {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
    torch.save({"steps": steps, "weights": dict(weights), **state}, half)
    half.replace(path)


def write_model(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write the reference model with the trained weights in place of its random ones."""
    build_model(REFERENCE, path)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            values = weights[tensor.name].detach().contiguous().numpy()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.doc_string = "Trained on Fashion-MNIST (MIT licence, Zalando SE)."
    onnx.checker.check_model(model)
    write_bytes_atomic(path, model.SerializeToString(deterministic=True))


def largest_difference(weights: Mapping[str, Tensor], images: NDArray[np.float32], answers: Answers) -> float:
    """Compare the confidences of PyTorch with those of the ONNX file: the largest absolute difference."""
    with torch.no_grad():
        logits = forward(weights, torch.from_numpy(images), training=False)
    confidence = torch.stack([rows.double().softmax(1).amax(1) for rows in logits], dim=1).numpy()
    return float(np.abs(confidence - answers.confidence[: len(images)]).max())


def main() -> None:
    """Train, export, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs") / f"{REFERENCE}.pt", metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, default=HERE, metavar="FOLDER")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    images, classes = read_images(options.data, "train")
    weights = train(images, classes, steps=options.steps, threads=options.threads, checkpoint=options.checkpoint)
    model = options.output / f"{REFERENCE}-fashion.onnx"
    write_model(weights, model)

    pixels, labels = read_images(options.data, "t10k")
    inputs = place(pixels)
    answers = Answers.of(model, inputs, labels)
    difference = largest_difference(weights, inputs[:SLICE_SAMPLES], answers)
    training = {"images": len(images), "batch": BATCH, "steps": options.steps, "torch_max_abs_difference": difference}
    document = measure(model, answers) | {"training": training}
    text = json.dumps(document, indent=1)
    flat = re.sub(r"\{[^{}]*\}", lambda found: " ".join(found[0].split()), text)  # a line for each point of a curve
    write_text_atomic(model.with_suffix(".json"), flat + "\n")
    write_slice(model.with_suffix(".npz"), inputs, labels, answers)
    for name in OUTPUTS:
        log.info("%s: %.2f %% right", name, 100 * document["test"]["accuracy"][name])


if __name__ == "__main__":
    main()
