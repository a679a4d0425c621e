import math

import pytest

from conf.errors import FedproofError
from task.options import choice, real, whole


def test_good_values_pass():
    assert real({"eta": 0.0}, "strategy.eta") == 0.0
    assert real({"beta": 0.5}, "strategy.beta", below=1) == 0.5
    assert real({"share": 1.0}, "compression.share", positive=True, most=1) == 1.0
    assert whole({"k": 3}, "partition.k", 1) == 3
    assert choice({"split": "rows"}, "task.split", ("rows", "subjects")) == "rows"


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, None])
def test_bad_reals_are_named(value):
    with pytest.raises(FedproofError, match=r"^strategy\.eta must be at least 0 and finite, got"):
        real({"eta": value}, "strategy.eta")


def test_bounds_are_named():
    with pytest.raises(FedproofError, match=r"must lie in \[0, 1\), got 1"):
        real({"beta": 1.0}, "strategy.beta", below=1)
    with pytest.raises(FedproofError, match=r"must lie in \(0, 1\], got 1.01"):
        real({"share": 1.01}, "compression.share", positive=True, most=1)
    with pytest.raises(FedproofError, match=r"must lie in \[0, 1\], got nan"):
        real({"alpha": math.nan}, "personalization.alpha", most=1)
    with pytest.raises(FedproofError, match=r"must be positive and finite, got 0"):
        real({"alpha": 0.0}, "partition.alpha", positive=True)
    with pytest.raises(FedproofError, match=r"must be at least 1, got None"):
        whole({"k": None}, "partition.k", 1)
    with pytest.raises(FedproofError, match=r"must be one of rows, subjects, got days"):
        choice({"split": "days"}, "task.split", ("rows", "subjects"))


@pytest.mark.parametrize("value", ["abc", True, [1]])
def test_what_is_no_number_is_named(value):
    with pytest.raises(FedproofError, match=r"^privacy\.sigma must be a number, got"):
        real({"sigma": value}, "privacy.sigma")
    for other in (value, 2.5):
        with pytest.raises(FedproofError, match=r"^partition\.seed must be a whole number, got"):
            whole({"seed": other}, "partition.seed", 0)
