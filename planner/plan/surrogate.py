"""The convex surrogate of the queueing delay that the solvers minimise.

By Little's law Σ p_s λ_s T_s = Σ p_s N_s. With service by preemptive priority the mean numbers at one resource nest:
with the distinct priorities p_(1) > p_(2) > … and σ_k the utilisation by classes 1..k, the classes 1..k together hold
G(σ_k) = σ_k + κ σ_k² / (1 − σ_k) samples (Pollaczek-Khinchine, κ = (1 + cv²) / 2), so that

    Σ_s p_s N_s = Σ_k (p_(k) − p_(k+1)) G(σ_k),   p_(K+1) = 0.

Exact for preemptive M/M/1 with one common mean (κ = 1); a surrogate otherwise.

References
----------
J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9 (1961).
L. Kleinrock, "Queueing Systems, Volume 2: Computer Applications" (1976), chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UTILISATION_CAP = 0.95
"""Largest utilisation that is planned for any worker or network."""

Array = NDArray[np.float64]


def kappa(service_cv: float) -> float:
    """Return κ of service times with coefficient of variation ``service_cv``."""
    return (1 + service_cv**2) / 2


def congestion(sigma: Array, kappa: float) -> Array:
    """Return the mean number of samples G(σ) at a resource of utilisation ``sigma``; infinite from 1 on.

    Examples
    --------
    >>> congestion(np.array([0.5, 1.0]), kappa=1.0)
    array([ 1., inf])
    """
    free = 1 - sigma
    stable = free > 0
    return np.where(stable, sigma + kappa * sigma**2 / np.where(stable, free, 1.0), np.inf)


def congestion_slope(sigma: Array, kappa: float) -> Array:
    """Return the derivative G'(σ) for σ < 1."""
    return 1 + kappa * sigma * (2 - sigma) / (1 - sigma) ** 2


@dataclass(frozen=True)
class Classes:
    """Sources by distinct priority, the most important class first.

    Parameters
    ----------
    of_source
        Class of each source, from 0; shape [S].
    weight
        p_(k) − p_(k+1), positive; shape [K].
    """

    of_source: NDArray[np.intp]
    weight: Array

    @classmethod
    def of(cls, priority: Array) -> Classes:
        """Group sources of equal ``priority``, shape [S]."""
        distinct, inverse = np.unique(-priority, return_inverse=True)
        return cls(of_source=inverse, weight=np.diff(np.append(distinct, 0.0)))

    def nested(self, load: Array) -> Array:
        """Return the utilisation σ_k by classes 1..k from the sources' ``load`` [S, R]; shape [K, R]."""
        by_class = np.stack([load[self.of_source == level].sum(axis=0) for level in range(len(self.weight))])
        return np.cumsum(by_class, axis=0)


def weighted_number(classes: Classes, load: Array, kappa: float) -> float:
    """Return Σ_s p_s N_s over all resources from the utilisations ``load`` [S, R], without latency."""
    return float(classes.weight @ congestion(classes.nested(load), kappa).sum(axis=1))


def numbers(classes: Classes, load: Array, kappa: float) -> Array:
    """Return the mean number N_s of each source's samples at resources, shape [S].

    Class k holds G(σ_k) − G(σ_(k−1)) at a resource; its sources share that in proportion to their work.
    """
    sigma = classes.nested(load)
    held = congestion(sigma, kappa)
    with np.errstate(invalid="ignore"):
        by_class = np.diff(held, axis=0, prepend=0.0)
    by_class = np.where(np.isnan(by_class), np.inf, by_class)
    used = np.diff(sigma, axis=0, prepend=0.0)
    per_work = np.where(used > 0, by_class / np.where(used > 0, used, 1.0), 0.0)
    return np.asarray((load * np.where(load > 0, per_work[classes.of_source], 0.0)).sum(axis=1))
