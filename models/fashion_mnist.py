"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747; MIT licence) in the form that the model takes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

LICENCE: Final = Path(__file__).with_name("LICENSE.fashion-mnist")
SIZE: Final = 28  # of an image, in pixels
PADDED: Final = 32
CENTRED: Final = (PADDED - SIZE) // 2


def read_images(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one part of the data set as it is published.

    Parameters
    ----------
    folder
        Where the four ``.gz`` files lie.
    part
        ``train`` (60,000 images) or ``t10k`` (10,000 images for tests).

    Returns
    -------
    tuple
        Images, shape (n, 28, 28), and labels in 0..9, shape (n,).
    """
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, SIZE, SIZE)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def place(images: NDArray[np.uint8], corners: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
    """Place images on a black 32×32 ground, as three equal channels of values in [0, 1].

    Parameters
    ----------
    images
        Shape (n, 28, 28).
    corners
        Row and column of the upper left corner of each, 0 to 4, shape (n, 2); in the middle by default.

    Returns
    -------
    ndarray
        Shape (n, 3, 32, 32).
    """
    placed = np.zeros((len(images), 1, PADDED, PADDED), np.float32)
    if corners is None:
        corners = np.full((len(images), 2), CENTRED)
    for ground, image, (row, column) in zip(placed[:, 0], images, corners, strict=True):
        ground[row : row + SIZE, column : column + SIZE] = image
    return np.repeat(placed / np.float32(255), 3, axis=1)
