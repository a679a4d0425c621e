import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from task.arrays import array_of, blank, serialized, values_of

VALUES = st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, min_side=0))
)


@given(VALUES, st.booleans())
def test_bytes_and_values_are_those_of_flower(values, transposed):
    values = values.T if transposed else values
    ours, flowers = array_of(values), Array(values)
    assert (ours.dtype, ours.shape, ours.stype) == (flowers.dtype, flowers.shape, flowers.stype)
    if values.flags.c_contiguous:
        assert bytes(ours.data) == flowers.data
    for array in (ours, flowers):
        np.testing.assert_array_equal(values_of(array), values)
    np.testing.assert_array_equal(ours.numpy(), values)


def test_no_copy_is_made():
    array, place = blank((3,), np.dtype(np.float32))
    assert not place.any()
    place[:] = [1, 2, 3]
    read = values_of(array)
    place[0] = 9
    assert read.tolist() == [9, 2, 3]


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("float32", (3,), Array(np.ones(3)).data),
        ("float64", (3,), b"garbage" * 9),
        ("float64", (-3,), Array(np.ones(3)).data),
        ("no type", (3,), Array(np.ones(3)).data),
        ("object", (3,), Array(np.ones(3)).data),
    ],
)
def test_bytes_that_are_something_else_are_read_as_what_they_are_or_not_at_all(dtype, shape, data):
    array = serialized(dtype, shape, "numpy.ndarray", data)
    try:
        assert values_of(array).tolist() == [1.0, 1.0, 1.0]
    except (ValueError, TypeError):
        pass
    else:
        assert data != b"garbage" * 9
