"""Who trains: shares, chances and memory of each way of sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from server_app.federation.sampling import sample
from server_app.samplers import sampler_of
from server_app.samplers._base import exponential_race
from server_app.samplers._buffered import Buffered
from server_app.samplers.by_size import inclusion
from task.registry import names

ROWS = {f"c{i}": n for i, n in enumerate((5, 10, 20, 40, 80, 160, 30, 55, 70, 30))}
SIZES = st.dictionaries(
    st.text("abcd", min_size=1, max_size=3), st.integers(1, 500), min_size=2, max_size=12
)


def sampler(*overrides):
    return sampler_of(compose(overrides))


@pytest.mark.parametrize("name", names("server_app.samplers"))
@given(SIZES, st.floats(0.05, 1.0), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_cohorts_are_sorted_deterministic_and_no_larger_than_asked(name, rows, fraction, number):
    first, again = (
        sampler(f"sampling={name}").draw(told, fraction, number, 0)
        for told in (rows, dict(reversed(rows.items())))
    )
    size = max(1, int(fraction * len(rows) + 1e-9))
    assert first == again == sorted(set(first))
    assert set(first) <= set(rows)
    assert len(first) == size or (name == "availability" and 1 <= len(first) <= size)


def test_uniform_is_what_it_was():
    drawn = sampler("sampling=uniform").draw(ROWS, 0.3, 4, 1)
    assert drawn == sample(list(ROWS), 0.3, 42, "train", 4, 1)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.data())
def test_chances_of_inclusion(rows, data):
    size = data.draw(st.integers(1, len(rows)))
    chances = inclusion(rows, size)
    assert chances.sum() == pytest.approx(size)
    assert (chances > 0).all() and (chances <= 1 + 1e-12).all()
    free = chances < 1
    # In proportion to rows, but for those who are always drawn, and have more.
    assert np.ptp((chances / rows)[free]) < 1e-9 if free.any() else True


def test_sums_over_cohorts_by_size_are_unbiased():
    """Each client's mean contribution is its rows: what everybody would have contributed."""
    drawn = sampler("sampling=by_size")
    totals = dict.fromkeys(ROWS, 0.0)
    rounds = 4000
    for number in range(1, rounds + 1):
        cohort = drawn.draw(ROWS, 0.3, number, 0)
        for client, weight in drawn.weights(ROWS, cohort).items():
            totals[client] += weight / rounds
    for client, rows in ROWS.items():
        chance = min(1.0, 3 * rows / 500)
        error = rows / chance * np.sqrt(chance * (1 - chance) / rounds)
        assert totals[client] == pytest.approx(rows, abs=4.5 * error + 0.01 * rows)


def test_an_exponential_race_draws_in_proportion():
    chance = np.random.default_rng(0)
    first = [exponential_race(np.array([1.0, 3.0, 6.0]), chance)[0] for _ in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx([0.1, 0.3, 0.6], abs=0.03)


def test_power_of_choice_takes_the_highest_losses_of_its_candidates():
    mine = sampler("sampling=power_of_choice", "sampling.candidates=10")
    losses = {client: float(i) for i, client in enumerate(ROWS)}
    mine.learn(losses)
    assert mine.draw(ROWS, 0.3, 1, 0) == ["c7", "c8", "c9"]
    mine.learn({"c9": -1.0})
    assert mine.draw(ROWS, 0.3, 1, 0) == ["c6", "c7", "c8"]
    resumed = sampler("sampling=power_of_choice", "sampling.candidates=10")
    # Whoever never told a loss comes first.
    resumed.restore({"losses": {c: v for c, v in losses.items() if c != "c0"}})
    assert resumed.draw(ROWS, 0.3, 1, 0) == ["c0", "c8", "c9"]


def test_as_many_candidates_as_places_is_sampling_by_rows():
    mine = sampler("sampling=power_of_choice", "sampling.candidates=1")
    before = mine.draw(ROWS, 0.3, 2, 0)
    mine.learn({client: float(i) for i, client in enumerate(ROWS)})
    assert mine.draw(ROWS, 0.3, 2, 0) == before


def test_clients_are_on_and_off_in_blocks_of_the_period():
    mine = sampler("sampling=availability", "sampling.probability=0.6", "sampling.period=4")
    many = {f"c{i}": 1 for i in range(60)}
    cohorts = [set(mine.draw(many, 1.0, number, 0)) for number in range(1, 61)]
    on = np.array([[client in cohort for client in many] for cohort in cohorts])
    assert on.mean() == pytest.approx(0.6, abs=0.05)
    changes = on[1:] != on[:-1]
    assert changes.mean() == pytest.approx(2 * 0.6 * 0.4 / 4, abs=0.03)
    for client in changes.T:
        assert len(set(np.flatnonzero(client) % 4)) <= 1


def test_somebody_is_always_there():
    mine = sampler("sampling=availability", "sampling.probability=1e-6")
    assert all(len(mine.draw(ROWS, 0.5, number, 0)) == 1 for number in range(1, 9))


@given(SIZES, st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_buffers_schedule(rows, seed):
    told = ("strategy=fedbuff", "strategy.buffer=2", "strategy.concurrency=3", f"seed={seed}")
    schedule = sampler(*told)
    assert isinstance(schedule, Buffered)
    flushes = [schedule.flush(rows, number) for number in range(1, 9)]
    clocks = [flush.clock for flush in flushes]
    assert clocks == sorted(clocks)
    for number, flush in enumerate(flushes):
        assert len(flush.starts) == 2
        assert all(0 <= version <= number for version in flush.starts.values())
        assert len(flush.awaited) <= 3
    # Asked for out of order, after a restart, it is the same.
    assert sampler(*told).flush(rows, 8) == flushes[7]


def test_a_buffer_for_everybody_is_a_plain_round():
    schedule = sampler("strategy=fedbuff", "strategy.buffer=10", "strategy.concurrency=10")
    for number in range(1, 4):
        assert schedule.flush(ROWS, number).starts == dict.fromkeys(ROWS, number - 1)
    with pytest.raises(FedproofError, match=r"strategy.buffer=10 needs as many .* there are 9"):
        schedule.flush({c: n for c, n in ROWS.items() if c != "c0"}, 4)


SECRET = ("privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=1e-3")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("sampling=availability", *SECRET), "secret Poisson samples"),
        (("sampling=by_size", *SECRET), "fits the weights as they are"),
        (("sampling=power_of_choice", "privacy=record_dp", "privacy.sigma=1"), "no client tells"),
        (("sampling=power_of_choice", "aggregation=secagg"), "loss, which aggregation=secagg"),
        (("sampling=by_size", "aggregation=he"), "number of rows, which aggregation=he"),
        (("sampling=power_of_choice", "sampling.candidates=0.5"), "at least 1"),
        (("sampling=availability", "sampling.period=0"), "sampling.period must be at least 1"),
        (("sampling=availability", "sampling.probability=1.5"), "sampling.probability must"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, says):
    with pytest.raises(FedproofError, match=says):
        sampler(*overrides)
