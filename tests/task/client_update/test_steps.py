"""What local steps add up to, and what is refused because it is no such sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from task.client_update import update_of
from task.client_update._steps import accumulated

STEPS = st.integers(1, 60)
PARTS = st.floats(0.01, 0.95)


@given(STEPS)
def test_plain_steps_count_one_each(steps):
    assert accumulated(steps) == steps


@given(STEPS, PARTS)
def test_momentum_in_closed_form(steps, m):
    closed = (steps - m * (1 - m**steps) / (1 - m)) / (1 - m)
    assert accumulated(steps, m) == pytest.approx(closed)


@given(STEPS, PARTS)
def test_the_proximal_term_in_closed_form(steps, s):
    assert accumulated(steps, 0.0, s) == pytest.approx((1 - (1 - s) ** steps) / s)


@given(STEPS, PARTS, st.floats(0.0, 0.05))
def test_a_constant_gradient_moves_the_model_so_far(steps, m, s):
    moved = velocity = 0.0
    for _ in range(steps):
        velocity = m * velocity + 1.0 - s * moved
        moved += velocity
    weight = accumulated(steps, m, s)
    # Equal while no gradient's effect is turned round by the pull back.
    assert weight >= moved - 1e-9
    if s <= (1 - np.sqrt(m)) ** 2:
        assert weight == pytest.approx(moved)


REMOTE = ("federation=remote", "federation.superlink=x")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("strategy=scaffold", "train.optimizer=adam"), "train.optimizer=adam makes no such"),
        (("strategy=fednova", "train.keep_optimizer=true", "train.momentum=0.9"), "earlier ones"),
        (("strategy=scaffold", "sampling=by_size"), "which sampling=by_size changes"),
        (("strategy=feddyn", "sampling=by_size"), "which sampling=by_size changes"),
        (
            ("strategy=scaffold", "privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=1e-3"),
            "neither clips nor noises",
        ),
        (
            ("strategy=moon", "privacy=record_dp", "privacy.sigma=1.0"),
            "clips the gradients of the task's loss",
        ),
        (("strategy=feddyn", "compression=int8"), "which compression=int8 lets part"),
        (("strategy=fedbuff", "strategy.clock=real"), "federation=local has workers that share"),
        (("strategy=fedbuff", "strategy.clock=simulated", *REMOTE), "have speeds of their own"),
        (("strategy=fedbuff", "strategy.clock=wall"), "strategy.clock must be"),
        (("strategy=fedbuff", "federation.min_clients=3"), "never be met by strategy.buffer=2"),
        (("strategy=fedbuff", "sampling=availability"), "decides itself who trains"),
    ],
)
def test_what_does_not_fit_is_refused(overrides, says):
    with pytest.raises(FedproofError, match=says):
        update_of(compose(overrides))
