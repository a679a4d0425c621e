"""Silos keep to what their ledgers say; an audit sees when they do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from tests.adversary.canaries import AUDITS, FAULTS, lower_bound, run

SOME, FEW = 500, 100
PLANTED = [
    ("record_dp", "a tenth of the noise", SOME),
    ("record_dp", "no clipping", SOME),
    ("record_dp", "seeded noise", SOME),
    ("record_dp", "a header switches protection off", SOME),
    ("client_dp, local", "no clipping", FEW),
    ("client_dp, local", "seeded noise", FEW),
    ("client_dp, local", "a header switches protection off", FEW),
    ("distributed_dp", "a header switches protection off", FEW),
]
"""Mechanism, fault and canaries. Half the noise takes more of them than CI has time for."""


@pytest.mark.parametrize("mechanism", AUDITS)
def test_honest_silos_stay_below_their_ledgers(mechanism):
    audit = run(mechanism, "none", 1000 if mechanism == "record_dp" else FEW, header={"stack": 2})
    assert audit.passed, audit
    assert audit.claimed < 3


@pytest.mark.parametrize(("mechanism", "fault", "canaries"), PLANTED)
def test_planted_faults_come_out_above_the_ledger(mechanism, fault, canaries):
    assert fault in FAULTS
    audit = run(mechanism, fault, canaries)
    print(audit)
    assert not audit.passed, audit


def test_the_bound_holds_for_randomised_response():
    """ε-DP coins: of many audits no more than 5 % may claim more than ε."""
    epsilon, rng, wrong = 1.0, np.random.default_rng(0), 0
    for _ in range(200):
        correct = rng.binomial(300, np.exp(epsilon) / (1 + np.exp(epsilon)))
        wrong += lower_bound(300, 300, int(correct), 0.0) > epsilon
    assert wrong <= binom.ppf(0.999, 200, 0.05)
    assert lower_bound(300, 300, 290, 0.0) > 2
    assert lower_bound(300, 300, 290, 0.0) > lower_bound(300, 300, 290, 1e-3)
    assert lower_bound(300, 300, 150, 0.0) == 0
