"""Settings of aggregation=he are checked before a run, and answers are sums exactly."""

import sys

import numpy as np
import pytest
import torch

from conf.compose import compose
from conf.errors import FedproofError
from task.he.answers import AnswerSum, encrypted, opened
from task.he.figures import FigurePacking
from task.he.keyring import KeyRing
from task.layouts import Layout
from task.secure import protection_of
from task.secure.he import HE

TASK = "task=healthcare"


def built(*overrides: str) -> HE:
    found = protection_of(compose((TASK, "aggregation=he", *overrides)))
    assert isinstance(found, HE)
    return found


def test_without_tenseal_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(FedproofError, match=r"^aggregation=he needs TenSEAL, .*--extra he` adds"):
        built()


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("aggregation.degree=2048", "must be one of 4096, 8192, 16384, got 2048"),
        ("aggregation.scheme=paillier", "must be one of bfv, ckks"),
        ("aggregation.identities=none", "must be one of pinned, unverified"),
        ("aggregation.per_slot=2", r"lower aggregation.bits, aggregation.per_slot or aggr"),
        ("aggregation.bits=60", "lower aggregation.bits"),
        ("aggregation.range=0.0", "aggregation.range must be positive"),
        ("aggregation.min_cohort=1", "aggregation.min_cohort must be at least 2"),
        ("aggregation.max_clients=10000000", "lower aggregation.bits|lower aggregation.max_cl"),
    ],
)
def test_settings_that_cannot_work_are_refused(override, reason):
    pytest.importorskip("tenseal")
    with pytest.raises(FedproofError, match=reason):
        built(override)


@pytest.mark.parametrize("clients", [2, 100, 5000])
def test_figures_are_summed_exactly(clients):
    packed = FigurePacking(4, clients, 2, degree=8192, coefficient_bits=(60, 60))
    random = np.random.default_rng(clients)
    figures = np.rint(random.uniform(-1e6, 1e6, (clients, 4)) * 2**20) / 2**20
    figures[:, 0] = random.integers(0, 2_000_000, clients)
    total = sum(packed.packing.pack(packed.slots(row), 1) for row in figures)
    found = packed.sums(packed.packing.unpack(total))
    np.testing.assert_array_equal(found, figures.sum(0))
    for bad in (1e14, np.nan, -np.inf):
        with pytest.raises(FedproofError, match="too large to be summed"):
            packed.slots([bad, 0.0, 0.0, 0.0])


def test_figures_of_too_many_clients_are_refused():
    with pytest.raises(FedproofError, match=r"lower aggregation.max_clients"):
        FigurePacking(1, 100_000, 2, degree=4096, coefficient_bits=(54, 54))


@pytest.fixture(scope="module", params=["bfv", "ckks"])
def run(request):
    pytest.importorskip("tenseal")
    terms = built(
        f"aggregation.scheme={request.param}", "aggregation.degree=4096", "aggregation.bits=24"
    ).terms
    return terms, KeyRing.create(terms.parameters)


def answer(terms, ring, seed: int, size: int = 5000):
    update = torch.randn(size, generator=torch.Generator().manual_seed(seed)).clamp(-8, 8)
    figures = {"num-examples": [10.0 + seed], "loss": [0.25 * seed, -1.0]}
    return update, encrypted(terms, ring, update, 10 + seed, figures)


def test_a_sum_of_answers_holds_mean_and_figures(run):
    terms, ring = run
    total, updates = AnswerSum(terms), []
    for seed in range(4):
        update, (layout, parts) = answer(terms, ring, seed)
        updates.append(update.double().numpy())
        total.add(f"c{seed}", layout, parts)
    found = opened(terms, ring, total.layout, total.totals())
    assert (found.count, found.weight) == (4, 46)
    assert found.figures.tolist() == [46.0, 1.5, -4.0]
    mean = np.average(updates, axis=0, weights=[10, 11, 12, 13])
    assert 0 < np.abs(found.mean - mean).max() <= total.error(46) * (1 + 1e-9)
    if terms.scheme == "ckks":
        # What the server is told are multiples of about twice the error: no digit is below.
        grid = 2.0 ** np.floor(np.log2(2 * total.error(46)))
        assert np.all(found.mean % grid == 0)


def test_keys_come_back_from_their_bytes_and_nothing_else_does(run):
    terms, ring = run
    again = KeyRing(ring.data, terms.parameters)
    assert again.name == ring.name != KeyRing.create(terms.parameters).name
    assert len(terms.parameters) == (2 if terms.scheme == "ckks" else 1)
    for data in (b"", ring.data[:-1], ring.data + b"x", ring.data[4:]):
        with pytest.raises(FedproofError, match="key is damaged"):
            KeyRing(data, terms.parameters)


def test_what_does_not_belong_to_a_sum_leaves_it_as_it_was(run):
    terms, ring = run
    total = AnswerSum(terms)
    sound = [answer(terms, ring, seed)[1] for seed in range(3)]
    total.add("a", *sound[0])
    layout, parts = sound[1]
    short = {**parts, "figures": parts["figures"][:-1]}
    other = answer(terms, KeyRing.create(terms.parameters), 1)[1]
    for bad, reason in (
        ((layout, short), "damaged"),
        ((layout, {"figures": parts["figures"]}), "other figures"),
        ((Layout(5000, {"loss": 3}), parts), "other figures"),
        (other, "another key"),
    ):
        with pytest.raises(FedproofError, match=reason):
            total.add("b", *bad)
    total.add("b", *sound[1])
    total.add("c", *sound[2])
    assert total.clients == ["a", "b", "c"]
    assert opened(terms, ring, total.layout, total.totals()).figures[0] == 33.0


def test_sums_with_parts_of_different_clients_are_not_shown(run):
    terms, ring = run
    four, three = AnswerSum(terms), AnswerSum(terms)
    for seed in range(4):
        told = answer(terms, ring, seed)[1]
        four.add(f"c{seed}", *told)
        if seed:
            three.add(f"c{seed}", *told)
    mixed = {**four.totals(), "figures": three.totals()["figures"]}
    with pytest.raises(FedproofError, match="holds 4 updates, but the figures of 3 clients"):
        opened(terms, ring, four.layout, mixed)
    with pytest.raises(FedproofError, match="lacks a part"):
        opened(terms, ring, four.layout, {"figures": mixed["figures"]})


def test_values_beyond_the_range_and_weights_beyond_the_largest_are_refused(run):
    terms, ring = run
    for update, weight, reason in (
        (torch.tensor([0.0, 8.5]), 1, r"beyond aggregation.range=8"),
        (torch.tensor([0.0, torch.nan]), 1, "beyond aggregation.range=8"),
        (torch.zeros(2), 5001, "not between 1 and aggregation.max_weight=5000"),
    ):
        with pytest.raises(FedproofError, match=reason):
            encrypted(terms, ring, update, weight, {"n": [1.0]})
