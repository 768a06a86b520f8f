"""Intervals of estimates from the errors on measurements that were left out of the fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np

COVERAGE: Final = 0.9
"""Share of times that should lie in their intervals."""
MANY: Final = 30
"""From so many errors on, the width is one of them and not that of a distribution."""


def half_width(errors: Sequence[float], coverage: float = COVERAGE) -> float:
    """Return how far the logarithm of a time may be from that of its estimate.

    Parameters
    ----------
    errors
        Differences of the logarithms of predicted and measured times, of measurements left out of the fit.
    coverage
        Share of times whose difference should not be larger.

    Notes
    -----
    Of many errors it is the split conformal quantile, the ⌈(n + 1) · coverage⌉-th smallest (Lei et al., 2018,
    doi:10.1080/01621459.2017.1307116), which assumes no distribution. Few errors count as normal with mean 0, which
    gives Student's t distribution with n degrees of freedom.
    """
    sizes, count = np.sort(np.abs(errors)), len(errors)
    rank = math.ceil((count + 1) * coverage)
    if count >= MANY and rank <= count:
        return float(sizes[rank - 1])
    return student_t((1 + coverage) / 2, count) * float(np.sqrt(np.square(sizes).mean()))


def student_t(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution, above the median.

    For few degrees of freedom it is exact; from 5 on by Abramowitz and Stegun, 26.7.5, within 0.1 % up to 97.5 %.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return 2 * (probability - 0.5) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def around(mean_s: float, width: float) -> tuple[float, float]:
    """Return the interval of a time whose logarithm may be off by ``width``."""
    return mean_s * math.exp(-width), mean_s * math.exp(width)
