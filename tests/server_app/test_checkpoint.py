import os

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from server_app import checkpoint


def arrays(*shapes):
    return {f"a{i}": np.arange(int(np.prod(s)), dtype=np.float32).reshape(s) for i, s in
            enumerate(shapes)}  # fmt: skip


def test_saving_and_loading(tmp_path):
    tensors = arrays((2, 3), (), (4,)) | {"transposed": np.arange(6.0).reshape(2, 3).T}
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, tensors, {"round": 3})
    back, facts = checkpoint.load(path)
    assert facts == {"round": 3}
    for key, value in tensors.items():
        assert back[key].shape == value.shape and back[key].dtype == value.dtype
        assert (back[key] == value).all()
    assert list(tmp_path.iterdir()) == [path]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, arrays((2,)), {"round": 1})

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, arrays((2,)), {"round": 2})
    assert checkpoint.load(path)[1] == {"round": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", "torn"])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "c.safetensors"
    if content == "torn":
        checkpoint.save(path, arrays((50,)), {})
        path.write_bytes(path.read_bytes()[:-20])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(FedproofError, match="does not exist|is damaged or not from fedproof"):
        checkpoint.load(path)


class Strategy:
    """Anything with attributes."""


NESTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(NESTS)
@settings(max_examples=60, deadline=None)
def test_strategy_state_comes_back(value):
    before, after = Strategy(), Strategy()
    before.value = value
    checkpoint.restore_strategy(after, *checkpoint.strategy_state(before))
    assert after.value == value and type(after.value) is type(value)


def test_strategy_arrays_come_back_and_functions_stay():
    before, after = Strategy(), Strategy()
    before.moments = {"w": np.ones((2, 2)), "b": [np.float64(2.5), np.zeros(0)]}
    before.current = ArrayRecord({"w": Array(np.arange(3.0))})
    before.function = len
    after.function = max
    checkpoint.restore_strategy(after, *checkpoint.strategy_state(before))
    assert (after.moments["w"] == 1).all() and after.moments["b"][0] == 2.5
    assert after.moments["b"][1].shape == (0,)
    assert after.current["w"].numpy().tolist() == [0, 1, 2]
    assert after.function is max


def test_every_flipped_bit_is_refused_or_without_effect(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    tensors = {"model/a": np.arange(12, dtype=np.float32).reshape(3, 4), "noise/b": np.array(7.5)}
    facts = {"round": 4, "keys": ["a"], "note": "naïve"}
    checkpoint.save(path, tensors, facts)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            found, told = checkpoint.load(path)
        except FedproofError as error:
            assert "damaged" in str(error)
            continue
        assert told == facts and list(found) == sorted(tensors)
        assert all(np.array_equal(found[key], tensors[key]) for key in tensors)
