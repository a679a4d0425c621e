import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from task.privacy.correlated import NOISES, Banded, Independent, Tree
from task.privacy.noise import grid


def factor(kind, separation, rounds):
    """Return the matrix B with noise = B z for independent z, by feeding unit vectors."""
    made = []

    class Counting(kind):
        def _fresh(self, size, deviation):
            fresh = torch.zeros(size, dtype=torch.float64)
            fresh[len(made)] = deviation
            made.append(deviation)
            return fresh

    noise = Counting(separation)
    return torch.stack([noise.next(rounds, 1.0) for _ in range(rounds)])


@given(st.sampled_from(sorted(NOISES)), st.integers(1, 9), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_a_participation_costs_one_gaussian_mechanism(name, separation, rounds):
    # What a client adds in rounds t, t + separation, ... is seen through inv(B): B C = identity.
    kind = NOISES[name]
    shape = factor(kind, separation, rounds)
    if kind is Tree:
        # Nodes of one tree: a round is part of one node per level, each with this deviation.
        levels = separation.bit_length()
        assert shape.diagonal().square().allclose(torch.tensor(float(levels), dtype=torch.float64))
        return
    seen = torch.linalg.inv(shape)
    for first in range(rounds):
        taken = seen[:, first::separation]
        gram = taken.T @ taken
        assert torch.allclose(gram - gram.diag().diag(), torch.zeros_like(gram), atol=1e-9)
        assert gram.diag().max() <= 1 + 1e-9


@given(st.integers(1, 40), st.integers(1, 100))
@settings(deadline=None, max_examples=60)
def test_a_trees_sums_carry_one_node_per_binary_digit(separation, rounds):
    shape = factor(Tree, separation, rounds).cumsum(0)
    levels = separation.bit_length()
    for done in range(1, rounds + 1):
        full, rest = divmod(done, separation)
        nodes = full * separation.bit_count() + rest.bit_count()
        assert shape[done - 1].square().sum().item() == pytest.approx(levels * nodes)


@pytest.mark.parametrize("kind", [Tree, Banded])
def test_sums_over_many_rounds_are_noised_less_than_by_independent_noise(kind):
    rounds = separation = 128
    error = {
        each: factor(each, separation, rounds).cumsum(0).square().sum(1).mean().sqrt().item()
        for each in (kind, Independent)
    }
    assert error[kind] < 0.7 * error[Independent]


def test_banded_is_the_better_one():
    errors = [factor(kind, 128, 128).cumsum(0).square().sum(1).mean() for kind in (Banded, Tree)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("name", sorted(NOISES))
def test_a_restored_sequence_goes_on(name):
    torch.manual_seed(0)
    values = iter(torch.randn(20, 5, dtype=torch.float64).repeat(2, 1))

    class Given(NOISES[name]):
        def _fresh(self, size, deviation):
            return next(values) * deviation

    whole = Given(4)
    expected = [whole.next(5, 1.0) for _ in range(20)]
    parted = Given(4)
    for number in range(20):
        assert torch.equal(parted.next(5, 1.0), expected[number])
        state, parted = parted.state, Given(4)
        parted.state = {key: value.clone() for key, value in state.items()}


@pytest.mark.parametrize("name", sorted(NOISES))
def test_noise_is_of_the_deviation_asked_for_and_never_the_same(name):
    size = 20_000
    noise, other = (NOISES[name](8).next(size, 3.0) for _ in range(2))
    scale = {"independent": 1.0, "tree": math.sqrt(4), "banded": 1 / Banded(8).band[0]}[name]
    assert noise.std().item() == pytest.approx(3 * scale, rel=0.03)
    assert abs(torch.corrcoef(torch.stack([noise, other]))[0, 1].item()) < 0.03


@pytest.mark.parametrize("kind", [Independent, Tree])
def test_sums_lie_on_the_grid_of_their_noise(kind):
    """Mironov's attack: the last digits of a noised sum would tell what was in it."""
    noise = kind(5)
    for _ in range(7):
        sums = [torch.full((20,), 1 / 3, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)]
        drawn = noise.next(20, 1.3)
        step = grid(noise._scale * 1.3)
        for total in sums:
            steps = (noise.rounded(total, 1.3) + drawn) / step
            assert torch.equal(steps, steps.round())
