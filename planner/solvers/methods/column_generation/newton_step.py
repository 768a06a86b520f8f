"""A Newton step of the master with many routes, by a sparse factorisation.

The second derivatives over n shares are Aᵀ C A + D, with one row of A per resource and class, C and D diagonal. The
Schur complement C⁻¹ + A P Aᵀ, where P applies D⁻¹ and keeps the sum of each source's shares, has as many rows as A. It
is sparse where few routes cross between sites.

References
----------
S. J. Wright, "Primal-Dual Interior-Point Methods" (1997), chapter 11.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.linalg import LinAlgError
from scipy.sparse.linalg import splu

from planner.solvers.core.problem import Array, Integers

Curved = tuple[sparse.csr_array, Array]
"""The rows A [M, n] of the second derivatives, and their curvatures C [M], all positive."""


def sparse_step(curved: Curved, diagonal: Array, descent: Array, source: Integers) -> Array:
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
    rows, curvature = curved
    inverse = 1 / diagonal
    total = np.bincount(source, inverse)

    def projected(vector: Array) -> Array:
        """Return P ``vector``."""
        scaled = inverse * vector
        return scaled - inverse * (np.bincount(source, scaled) / total)[source]

    weighted = rows @ sparse.diags_array(inverse)
    members = sparse.csr_array((np.ones(len(source)), (np.arange(len(source)), source)))
    of_source = weighted @ members
    schur = weighted @ rows.T - of_source @ sparse.diags_array(1 / total) @ of_source.T
    schur = schur + sparse.diags_array(1 / curvature)
    # Rows are scaled to a diagonal of 1: curvatures differ by many orders of magnitude.
    unit = 1 / np.sqrt(schur.diagonal())
    scaled = (sparse.diags_array(unit) @ schur @ sparse.diags_array(unit)).tocsc()
    try:
        factors = splu(scaled, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError as error:
        raise LinAlgError(str(error)) from error
    price = unit * factors.solve(unit * (rows @ projected(descent)))
    return projected(descent - rows.T @ price)
