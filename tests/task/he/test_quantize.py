"""Rounding errs by half a step at most, and only what is beyond the range is clipped."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.he.quantize import Quantizer


@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50),
    clip=st.floats(1e-3, 1e3),
    bits=st.integers(2, 40),
    factor=st.floats(0, 1),
)
def test_the_error_is_half_a_step_at_most(values, clip, bits, factor):
    quantizer, given_ = Quantizer(clip, bits), np.array(values, np.float32)
    integers = quantizer.encode(given_, factor)
    assert np.abs(integers).max() <= quantizer.most < 2 ** (bits - 1)
    expected = np.clip(given_.astype(np.float64), -clip, clip) * factor
    error = np.abs(quantizer.decode(integers) - expected).max()
    assert error <= quantizer.step / 2 * (1 + 1e-9) + 1e-12 * clip


def test_ends_and_what_is_beyond():
    quantizer = Quantizer(0.5, 8)
    values = np.array([0.5, -0.5, 7.0, -7.0, 0.0, -0.0], np.float32)
    assert list(quantizer.encode(values)) == [127, -127, 127, -127, 0, 0]
    assert values[2] == 7.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(FedproofError, match="NaN or infinite"):
        Quantizer(1.0, 16).encode(np.array([0.0, bad], np.float32))
