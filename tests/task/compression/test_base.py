"""What holds for every compressor: a round trip, no memory but its own, no crash on nonsense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from task.compression import compressors_of
from task.compression.base import Compressor, MalformedError
from task.registry import names
from tests.task.compression.shared import LAYOUT, built, normal, there_and_back, vectors

NAMES = [name for name in names("task.compression") if name not in ("base", "none")]
every = pytest.mark.parametrize("name", NAMES)
arrays = st.builds(
    lambda data, dtype, shape: np.frombuffer(
        (data * 64)[: np.dtype(dtype).itemsize * int(np.prod(shape))], dtype
    ).reshape(shape),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(["u1", "f2", "f4", "f8", "u2", "i8", "?"]),
    st.sampled_from([(), (0,), (1,), (7,), (34,), (68,), (2, 34), (11,)]),
)


def test_none_is_none() -> None:
    assert compressors_of(compose(())) is None


@every
@given(values=vectors, seed=st.integers(0, 2**63 - 1))
@settings(max_examples=25, deadline=None)
def test_what_comes_back_is_a_finite_vector(name: str, values: list[float], seed: int) -> None:
    compressor, update = built(name), torch.tensor(values)
    before = update.clone()
    decoded = there_and_back(compressor, update, seed=seed)
    assert decoded.shape == update.shape and decoded.dtype == torch.float32
    assert torch.isfinite(decoded).all()
    assert torch.equal(update, before)
    assert torch.equal(decoded, there_and_back(compressor, update, seed=seed))


@every
def test_nothing_changed_stays_nothing(name: str) -> None:
    assert not there_and_back(built(name), torch.zeros(LAYOUT.size)).any()


@every
def test_the_largest_and_smallest_numbers(name: str) -> None:
    info = torch.finfo(torch.float32)
    for value in (info.max / 64, info.tiny, info.smallest_normal / 8, 1e-45):
        update = torch.full((LAYOUT.size,), value)
        assert torch.isfinite(there_and_back(built(name), update)).all()


def spoiled(packet: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray] | None]:
    """Return packets that nobody has made, by what is wrong with them."""
    first = next(iter(packet))
    values = packet[first]
    return {
        "nothing": {},
        "a missing array": {k: v for k, v in packet.items() if k != first},
        "a longer one": packet | {first: np.concatenate([values, values[:1]])},
        "another shape": packet | {first: values[None]},
        "another type": packet | {first: values.astype(np.float64)},
    }


@every
def test_malformed_packets_are_refused(name: str) -> None:
    compressor = built(name)
    packet, _ = compressor.encode(normal(), LAYOUT, {}, 0)
    for changed in spoiled(packet).values():
        with pytest.raises(MalformedError, match="holds no"):
            compressor.decode(changed, LAYOUT, 0)
    for key, values in packet.items():
        if values.dtype.kind == "f":
            with pytest.raises(MalformedError, match="holds NaN"):
                compressor.decode(packet | {key: np.full_like(values, np.nan)}, LAYOUT, 0)


def finite_or_refused(decode: Callable[[], torch.Tensor]) -> None:
    try:
        assert torch.isfinite(decode()).all()
    except MalformedError as error:
        assert str(error).startswith(("holds", "names"))


def changed_bytes(compressor: Compressor, place: int, value: int) -> dict[str, np.ndarray]:
    packet, _ = compressor.encode(normal(), LAYOUT, {}, 0)
    key = sorted(packet)[place % len(packet)]
    data = bytearray(packet[key].tobytes())
    data[place % len(data)] = value
    return packet | {key: np.frombuffer(bytes(data), packet[key].dtype)}


@every
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_are_read_or_refused(name: str, data: st.DataObject) -> None:
    compressor = built(name)
    keys = st.sampled_from(["values", "scales", "low", "high", "rest"])
    packet = data.draw(st.dictionaries(keys, arrays, max_size=4))
    finite_or_refused(lambda: compressor.decode(packet, LAYOUT, 0))
    other = changed_bytes(
        compressor, data.draw(st.integers(0, 999)), data.draw(st.integers(0, 255))
    )
    finite_or_refused(lambda: compressor.decode(other, LAYOUT, 0))


@pytest.mark.parametrize("name", [n for n in NAMES if built(n).feedback])
@given(rounds=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_with_feedback_nothing_is_lost(name: str, rounds: int, seed: int) -> None:
    compressor, memory, residual = built(name), {}, torch.zeros(LAYOUT.size)
    sent = wanted = torch.zeros(LAYOUT.size)
    for number in range(rounds):
        update = normal(seed=seed + number)
        packet, memory = compressor.encode(update + residual, LAYOUT, memory, number)
        decoded = compressor.decode(packet, LAYOUT, number)
        residual = update + residual - decoded
        sent, wanted = sent + decoded, wanted + update
    assert torch.allclose(sent + residual, wanted, atol=1e-4)
    assert not torch.allclose(sent, wanted, atol=1e-2)


@pytest.mark.parametrize("name", [n for n in NAMES if built(n).feedback])
@given(values=vectors, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_what_has_feedback_contracts(name: str, values: list[float], seed: int) -> None:
    update = torch.tensor(values)
    lost = update - there_and_back(built(name), update, seed=seed)
    assert lost.double().norm() <= update.double().norm() * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize(
    ("name", "option", "sentence"),
    [
        ("int8", "block=0", "compression.block must be at least 1"),
        ("quantize", "bits=0", "compression.bits must be at least 1"),
        ("quantize", "bits=5", "must be at most 4, got 5: compression=int8 has eight"),
        ("topk", "share=0.0", r"compression.share must lie in \(0, 1\], got 0.0"),
        ("random_mask", "share=1.5", r"must lie in \(0, 1\], got 1.5"),
        ("powersgd", "rank=0", "compression.rank must be at least 1"),
        ("topk", "down=topk", "compression.down must be one of none, fp16, bf16, int8"),
    ],
)
def test_settings_that_cannot_be(name: str, option: str, sentence: str) -> None:
    with pytest.raises(FedproofError, match=sentence):
        compressors_of(compose((f"compression={name}", f"compression.{option}")))
