"""Products are torch's, whatever their size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from task import products
from task.products import contracted, multiply

SIDES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, st.sampled_from([1 << 18, 5000, 200]), st.booleans(), st.booleans())
def test_products_of_stacks_are_torchs(rows, inner, columns, alone, flipped, apart):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(3, inner, rows, generator=generator, dtype=torch.float64).transpose(1, 2)
    right = torch.randn(3, inner, columns, generator=generator, dtype=torch.float64)
    left = left if flipped else left.contiguous()
    out = torch.full((rows, 3, columns), np.nan, dtype=torch.float64).transpose(0, 1)
    out = out if apart else out.contiguous()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ALONE", alone)
        multiply(left.numpy(), right.numpy(), out.numpy())
    torch.testing.assert_close(out, left @ right, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SIDES, st.integers(1, 2000), SIDES, st.sampled_from([1 << 18, 50_000]), st.booleans())
def test_long_sums_are_torchs(rows, inner, columns, alone, flipped):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(inner, n, generator=generator).double() for n in (rows, columns))
    left = left.t() if flipped else left.t().contiguous()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "ALONE", alone)
        found = contracted(left.numpy(), right.numpy())
    torch.testing.assert_close(torch.from_numpy(found), left @ right, rtol=1e-12, atol=1e-9)


def test_a_matrix_multiplies_each_of_a_stack():
    left, right, out = np.eye(3)[::-1], np.arange(24.0).reshape(4, 3, 2), np.empty((4, 3, 2))
    multiply(left, right, out)
    assert np.array_equal(out, right[:, ::-1])


def test_no_product_is_large_enough_for_a_second_thread(monkeypatch):
    sizes = []
    compute = np.matmul

    def noted(left, right, **options):
        sizes.append(left.shape[-2] * left.shape[-1] * right.shape[-1])
        return compute(left, right, **options)

    monkeypatch.setattr(products.np, "matmul", noted)
    for rows, inner, columns in ((6, 6, 50_000), (448, 32, 64), (500, 500, 500)):
        left, right = np.ones((rows, inner)), np.ones((inner, columns))
        out = np.empty((rows, columns))
        multiply(left, right, out)
        assert (out == inner).all()
    assert (contracted(np.ones((32, 9000)), np.ones((9000, 27))) == 9000).all()
    assert len(sizes) >= 4 and max(sizes) <= 1 << 18


def test_large_products_may_use_torchs_threads(monkeypatch):
    monkeypatch.setattr(products.np, "matmul", None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    out = np.empty((6, 50_000))
    multiply(np.ones((6, 6)), np.ones((6, 50_000)), out)
    assert (out == 6).all()
    assert (contracted(np.ones((32, 9000)), np.ones((9000, 27))) == 9000).all()
