"""Products of small matrices, of which a step on a small network has thousands.

torch hands them to MKL, which reaches two thirds of what numpy's OpenBLAS does on them, and half or
less on those of a few rows. On large ones they are alike. OpenBLAS would share products beyond a
size among threads of its own, that nobody counts on: what is larger is cut, or left to torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Matrices = NDArray[Any]
"""Stacks of matrices: the last two dimensions are theirs."""
ALONE = 1 << 18
"""Multiplications of a product that OpenBLAS surely leaves to one thread (its
``SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD``)."""
_COLUMNS = 16
"""With fewer columns at once the left matrix would be read too often."""
quietly = np.errstate(all="ignore")
"""Decorates what multiplies: of a model that diverges torch says nothing either."""


def multiply(left: Matrices, right: Matrices, out: Matrices) -> None:
    """Write the products of stacks of matrices to `out`.

    Values of a row should lie next to each other in all three, and rows in no order. Of `left` the
    same may hold for columns, at no cost; of `right` it costs half of the speed.

    Parameters
    ----------
    left : ndarray, shape (..., m, k)
        Often of fewer dimensions, which numpy's rules then add.
    right : ndarray, shape (..., k, n)
        As `left`.
    out : ndarray, shape (..., m, n)
        Overwritten.
    """
    rows, inner = left.shape[-2:]
    columns = right.shape[-1]
    if rows * inner * columns <= ALONE:
        np.matmul(left, right, out=out)
    elif rows * inner * _COLUMNS > ALONE:
        np.copyto(out, (torch.from_numpy(left) @ torch.from_numpy(right)).numpy())
    else:
        for first in range(0, columns, width := ALONE // (rows * inner)):
            part = slice(first, first + width)
            np.matmul(left, right[..., part], out=out[..., part])
