"""A Newton step of the master where workers form sites, by conjugate gradients.

The second derivatives over n shares are Aᵀ C A + D, with one row of A per resource and class, C and D diagonal. The
Schur complement C⁻¹ + A P Aᵀ, where P applies D⁻¹ and keeps the sum of each source's shares, has as many rows as A. Few
routes cross between sites, so its blocks of one site each are a good preconditioner.

References
----------
S. J. Wright, "Primal-Dual Interior-Point Methods" (1997), chapter 11.
R. S. Dembo, S. C. Eisenstat and T. Steihaug, "Inexact Newton methods", SIAM Journal on Numerical Analysis 19 (1982).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg

from planner.solvers.core.problem import Array, Integers

TOLERANCE = 1e-8
"""Relative residual in prices; curvatures near overload multiply it by up to 1e6 in the step."""
MAX_ITERATIONS = 200


class Curved(NamedTuple):
    """The second derivatives Aᵀ C A: rows A [M, n], positive curvatures C [M], and the site of each row [M]."""

    rows: sparse.csr_array
    curvature: Array
    site: Integers


def site_step(curved: Curved, diagonal: Array, descent: Array, source: Integers) -> Array:
    """Return the step x with (Aᵀ C A + D) x + (a constant per source) = ``descent``, whose sum per source is 0.

    Parameters
    ----------
    diagonal
        D, positive; shape [n].
    source
        Source of each column; shape [n].

    Raises
    ------
    LinAlgError
        The numbers are too far apart.
    """
    order = np.argsort(curved.site, kind="stable")
    rows, curvature, site = curved.rows[order], curved.curvature[order], curved.site[order]
    inverse = 1 / diagonal
    total = np.bincount(source, inverse)

    def projected(vector: Array) -> Array:
        """Return P ``vector``."""
        scaled = inverse * vector
        return scaled - inverse * (np.bincount(source, scaled) / total)[source]

    columns = rows.T.tocsr()

    def schur(price: Array) -> Array:
        return np.asarray(price / curvature + rows @ projected(columns @ price))

    weighted = rows @ sparse.diags_array(inverse)
    members = sparse.csr_array((1 / np.sqrt(total[source]), (np.arange(len(source)), source)))
    of_source = (weighted @ members).tocsr()
    begins = np.flatnonzero(np.diff(site, prepend=-1)).tolist()
    blocks = [slice(begin, end) for begin, end in zip(begins, [*begins[1:], len(site)], strict=True)]
    factors = []
    for block in blocks:
        matrix = weighted[block] @ rows[block].T - of_source[block] @ of_source[block].T
        factors.append(cho_factor(matrix.toarray() + np.diag(1 / curvature[block])))

    def preconditioned(residual: Array) -> Array:
        return np.concatenate(
            [cho_solve(factor, residual[block]) for factor, block in zip(factors, blocks, strict=True)]
        )

    shape = (len(site), len(site))
    price, _ = cg(
        LinearOperator(shape, matvec=schur, dtype=np.float64),
        rows @ projected(descent),
        rtol=TOLERANCE,
        maxiter=MAX_ITERATIONS,
        M=LinearOperator(shape, matvec=preconditioned, dtype=np.float64),
    )
    return projected(descent - columns @ price)
