"""Sums of encoded vectors stand for sums of updates, and never wrap around."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.secagg.encoding import FIGURE_BITS, FRACTION_BITS, Encoding, summable
from task.secagg.masks import TYPES
from tests.task.secagg.protocol import TERMS

BITS = pytest.mark.parametrize("bits", [16, 32])
BOTH = pytest.mark.parametrize("stochastic", [False, True])
LARGEST = 2.0 ** (FIGURE_BITS - 1 - FRACTION_BITS)


def summed(vectors: list[np.ndarray]) -> np.ndarray:
    return np.sum(vectors, axis=0, dtype=vectors[0].dtype)


@st.composite
def encodings(draw: st.DrawFn) -> tuple[Encoding, int]:
    terms = replace(
        TERMS,
        bits=draw(st.sampled_from([16, 32])),
        range=draw(st.sampled_from([0.001, 0.1, 1.0, 8.0, 300.0])),
        max_weight=draw(st.sampled_from([1, 7, 1000, 10**6])),
        stochastic=draw(st.booleans()),
    )
    clients = draw(st.integers(1, 300))
    size, figures = draw(st.integers(0, 20)), draw(st.integers(0, 3))
    return Encoding(terms, clients, size, figures), draw(st.integers(1, min(clients, 12)))


@settings(deadline=None)
@given(encodings(), st.integers(0, 2**32 - 1))
def test_sums_err_by_no_more_than_they_say(case, seed):
    encoding, clients = case
    rng, terms = np.random.default_rng(seed), encoding.terms
    # Just within the range, where float32 could round beyond.
    bound = terms.range * (1 - 1e-6)
    updates = rng.choice([rng.uniform(-bound, bound), bound, -bound, 0], (clients, encoding.size))
    weights = rng.integers(1, terms.max_weight, clients, endpoint=True)
    figures = rng.uniform(-1e6, 1e6, (clients, encoding.figures))
    single = torch.from_numpy(updates.astype(np.float32))
    vectors = [
        encoding.encode(single[i], int(weights[i]), figures[i].tolist()) for i in range(clients)
    ]
    assert all(v.shape == (encoding.length,) and v.dtype == TYPES[terms.bits] for v in vectors)
    values, read = encoding.decode(summed(vectors), clients)
    expected = (single.numpy().astype(np.float64) * weights[:, None]).sum(axis=0)
    assert (np.abs(values - expected) <= encoding.error * (1 + 1e-6)).all()
    np.testing.assert_allclose(read, figures.sum(axis=0), rtol=0, atol=clients * 2.0**-20)


@BITS
@BOTH
@pytest.mark.parametrize("clients", [1, 2, 3, 100, 1000])
@pytest.mark.parametrize("end", [-1, 1])
def test_sums_at_the_declared_extremes_do_not_wrap(bits, stochastic, clients, end):
    """All clients, at the largest weight, at one end of the range."""
    terms = replace(TERMS, bits=bits, range=0.25, max_weight=977, stochastic=stochastic)
    encoding = Encoding(terms, clients, 50, 2)
    update, big = torch.full((50,), end * 0.25), end * (LARGEST - 2**-9)
    vector = encoding.encode(update, 977, [big, -big])
    total = sum(
        (encoding.encode(update, 977, [big, -big]).astype(object) for _ in range(clients - 1)),
        vector.astype(object),
    )  # fmt: skip
    wrapped = (total % 2**bits).astype(TYPES[bits])
    values, read = encoding.decode(wrapped, clients)
    exact = clients * 977 * end * 0.25
    assert np.abs(values - exact).max() <= encoding.error * (1 + 1e-6)
    assert read == pytest.approx([clients * big, -clients * big], rel=1e-12)
    # The words hold it with a sign, and the pieces of figures never reach the modulus.
    assert np.abs(encoding.signed(wrapped)).max() <= 2 ** (bits - 1) - 1
    assert total[50:].max() < 2**bits


@BITS
def test_figures_that_are_multiples_come_back_exactly(bits):
    encoding = Encoding(replace(TERMS, bits=bits), 5, 0, 4)
    rows = [[0.0, -1.0, 2.0**-20, 2.0**42], [3.5, -(2.0**30), -(2.0**-20), -(2.0**42)],
            [1e9, 123.25, 2.0**-19, 2.0**41 + 0.5]]  # fmt: skip
    total = summed([encoding.join(np.empty(0, np.int64), row) for row in rows])
    assert encoding.read(total, 3) == np.sum(rows, axis=0).tolist()
    assert encoding.decode(total, 3)[0].shape == (0,)


def test_integers_of_an_update_are_summed_exactly():
    """As discrete noise needs it (`join` and `signed`)."""
    encoding = Encoding(TERMS, 4, 3, 0)
    rows = [[-5, 0, 2**29], [3, -(2**30), 1], [1, -1, -(2**28)]]
    total = summed([encoding.join(np.array(row, np.int64), []) for row in rows])
    assert encoding.signed(total).tolist() == np.sum(rows, axis=0).tolist()


@BITS
def test_rounding_at_random_has_no_bias(bits):
    terms = replace(TERMS, bits=bits, stochastic=True, range=1.0, max_weight=1)
    encoding = Encoding(terms, 10, 40_000, 0)
    scale = 10 / encoding.error
    for part in (0.1, 0.5, 0.83, -0.25):
        update = torch.full((40_000,), (7 + part) / scale, dtype=torch.float64)
        found = encoding.signed(encoding.encode(update, 1, []))
        low = math.floor(7 + part)
        assert set(found.tolist()) <= {low, low + 1}
        # Seven standard deviations of a mean of 40,000.
        assert abs(found.mean() - (7 + part)) < 7 * 0.5 / 200


@BITS
def test_rounding_to_the_nearest_is_to_the_nearest(bits):
    encoding = Encoding(replace(TERMS, bits=bits, range=1.0, max_weight=1), 10, 5, 0)
    scale = 5 / encoding.error
    update = torch.tensor([0.4, 0.6, -0.4, -0.6, 3.0], dtype=torch.float64) / scale
    assert encoding.signed(encoding.encode(update, 1, [])).tolist() == [0, 1, 0, -1, 3]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_updates_of_any_kind_are_left_as_they_were(kind):
    update = torch.tensor([0.5, -0.25, 1.0], dtype=kind)
    encoding = Encoding(TERMS, 3, 3, 0)
    values, _ = encoding.decode(encoding.encode(update, 4, []), 1)
    np.testing.assert_allclose(values, [2.0, -1.0, 4.0], atol=encoding.error)
    assert update.tolist() == [0.5, -0.25, 1.0]


def refused(encoding: Encoding, update: torch.Tensor, weight: int, figures: list[float]) -> str:
    """Return the sentence of a refusal that shows no value."""
    with pytest.raises(FedproofError) as caught:
        encoding.encode(update, weight, figures)
    text = str(caught.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text
    assert set(re.findall(r"[\d.]*\d", text)) <= {"8", "1", "1000"}  # the settings
    assert "nan" not in text and "inf" not in text
    return text


@pytest.mark.parametrize("value", [8.001, -8.001, 4321.5, math.inf, -math.inf, math.nan])
@BOTH
def test_values_beyond_the_range_are_refused(value, stochastic):
    encoding = Encoding(replace(TERMS, stochastic=stochastic), 3, 4, 1)
    update = torch.zeros(4)
    update[2] = value
    assert "beyond aggregation.range=8" in refused(encoding, update, 5, [0.0])


@pytest.mark.parametrize("weight", [1001, 10**9, 0, -3, math.nan, math.inf])
def test_weights_that_were_not_declared_are_refused(weight):
    text = refused(Encoding(TERMS, 3, 4, 1), torch.zeros(4), weight, [0.0])
    assert "not between 1 and aggregation.max_weight=1000" in text


@pytest.mark.parametrize(
    "figures", [[LARGEST], [-LARGEST], [1e300], [math.inf], [math.nan], [], [1.0, 2.0]]
)
def test_figures_that_do_not_fit_are_refused(figures):
    assert "figure" in refused(Encoding(TERMS, 3, 4, 1), torch.zeros(4), 5, figures)


def test_cohorts_that_do_not_fit_are_refused():
    small = replace(TERMS, bits=16)
    for clients in (2**16, 2**17):
        with pytest.raises(FedproofError, match=f"sums of {clients} clients do not fit into 16"):
            Encoding(small, clients, 10, 0)
    with pytest.raises(FedproofError, match="do not fit into 16 bits"):
        Encoding(replace(small, stochastic=True), 2**15, 10, 0)
    assert Encoding(small, 30_000, 10, 1).length == 10 + 64


@BITS
@pytest.mark.parametrize("clients", [1, 3, 4, 7, 8, 1000])
def test_pieces_leave_room_for_everybody(bits, clients):
    encoding = Encoding(replace(TERMS, bits=bits), clients, 0, 1)
    piece = encoding._piece
    assert clients * (2**piece - 1) < 2**bits <= 2 * (clients + 1) * 2**piece
    assert encoding.length == math.ceil(64 / piece)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30, -1e30, math.inf, -math.inf, math.nan])
def test_figures_of_any_size_are_summed_and_none_is_refused(value):
    """The attack: whether a silo refuses its evaluation tells of a row that overflows."""
    figure = summable(value)
    assert abs(figure) < LARGEST
    assert figure == value or not abs(value) < LARGEST
