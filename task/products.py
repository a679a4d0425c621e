"""Products of small matrices, which steps on small networks consist of.

torch hands them to MKL, which reaches two thirds of the speed that numpy's OpenBLAS does on them,
and half or less on those with few rows. On large ones they are alike. OpenBLAS shares products
beyond a size among threads of its own, that nobody reckons with: those are cut, or left to torch,
as they are where torch may use several threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

Matrices = NDArray[Any]
"""Stacks of matrices: the last two dimensions are theirs."""
KINDS = (torch.float32, torch.float64)
"""Types of values that numpy's BLAS multiplies."""
ALONE = 1 << 18
"""Multiplications in a product that OpenBLAS leaves to one thread (its ``SMP_THRESHOLD_MIN`` times
``GEMM_MULTITHREAD_THRESHOLD``)."""
CACHED = 1 << 19
"""Values of a weight that are read at once for two products: 2 MiB, part of a shared cache."""
_COLUMNS, _INNER = 16, 128
"""Pieces with fewer columns, or with shorter sums, are slower than torch."""
quietly = np.errstate(all="ignore")
"""Decorates what multiplies: of a model that diverges torch says nothing either."""


def multiply(left: Matrices, right: Matrices, out: Matrices) -> None:
    """Write the products of stacks of matrices to `out`.

    Values in a row, or in a column of `left`, should lie next to each other; those in a column of
    `right` cost half of the speed.

    Parameters
    ----------
    left : ndarray, shape (..., m, k)
        Of fewer dimensions, if need be, which numpy's rules add.
    right : ndarray, shape (..., k, n)
        As `left`.
    out : ndarray, shape (..., m, n)
        Overwritten.
    """
    rows, inner = left.shape[-2:]
    columns = right.shape[-1]
    if rows * inner * columns <= ALONE:
        np.matmul(left, right, out=out)
    elif rows * inner * _COLUMNS > ALONE or torch.get_num_threads() > 1:
        np.copyto(out, (torch.from_numpy(left) @ torch.from_numpy(right)).numpy())
    else:
        width = even(columns, ALONE // (rows * inner))
        np.matmul(left[..., None, :, :], _pieces(right, width), out=_pieces(out, width))
        if rest := columns % width:
            np.matmul(left, right[..., -rest:], out=out[..., -rest:])


def contracted(left: Matrices, right: Matrices) -> Matrices:
    """Return the product of two matrices, of shapes (m, k) and (k, n), where k is large.

    As the sum of products of pieces, which a core's cache holds.
    """
    inner = left.shape[1]
    most = ALONE // (len(left) * right.shape[1])
    if most < _INNER or inner <= most or torch.get_num_threads() > 1:
        return np.asarray(torch.from_numpy(left) @ torch.from_numpy(right))
    width = even(inner, most)
    parts = np.matmul(_pieces(left, width), _pieces(right.T, width).swapaxes(-1, -2))
    total: Matrices = parts.sum(0)
    if rest := inner % width:
        total += left[:, -rest:] @ right[-rest:]
    return total


@quietly
def stepped(weight: Tensor, x: Tensor, grad: Tensor, rate: float) -> Tensor:
    """Return the gradient of a dense layer's input, and take the step with its weight.

    Some columns of the weight at a time, which then come from memory once for both.
    """
    if weight.numel() <= CACHED:
        x_grad = grad @ weight
        weight.addmm_(grad.t(), x, alpha=-rate)
        return x_grad
    x_grad, grad_t = torch.empty_like(x), grad.t().contiguous()
    width = -(-weight.shape[1] // -(-weight.numel() // CACHED))
    parts = (torch.split(whole, width, 1) for whole in (weight, x, x_grad))
    for part, inputs, out in zip(*parts, strict=True):
        multiply(grad.numpy(), part.numpy(), out.numpy())
        part.addmm_(grad_t, inputs, alpha=-rate)
    return x_grad


def even(length: int, most: int) -> int:
    """Return the length of pieces, which are at most so long and alike, but the last one."""
    return -(-length // -(-length // most))


def _pieces(matrices: Matrices, width: int) -> Matrices:
    """View all columns but the last few as a stack of pieces with so many columns each."""
    *stack, rows, columns = matrices.shape
    *steps, line, step = matrices.strides
    shape = (*stack, columns // width, rows, width)
    return as_strided(matrices, shape, (*steps, width * step, line, step))
