"""What Gaussian mechanisms cost together.

The reference is the privacy loss distribution (PLD, `task.privacy.loss_sums`), tight, and
checked against that of Google's dp-accounting; the latter's Rényi accountant bounds what no grid
holds. The neighbouring relation is add-or-remove-one throughout, the one for which Poisson sampling
amplifies as accounted here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

RELATION = "add-or-remove-one"
ACCOUNTANT = "PLD"
ORDERS = (*range(2, 64), 80, 96, 128, 192, 256, 512)
_MOST_NOISE, _LEAST_NOISE = 1e8, 0.05
"""Noise multipliers that are looked at; one below the least protects nobody from anything."""
_PRECISION = 3e-3
"""By how much more noise is found than would do."""


@dataclass(frozen=True, order=True)
class Spend:
    """Gaussian mechanisms of one kind that were released.

    Attributes
    ----------
    sigma : float
        Noise multiplier: standard deviation over sensitivity; 0 if there was no noise.
    rate : float
        Probability with which each record (or client) took part, independently; 1 if all did.
    steps : int
        How many.
    slack : float
        λ: each mechanism's output is, up to factors e^±λ in probability, that of a Gaussian one.
    renyi : bool
        Whether only the Rényi divergences of that Gaussian bound its own, at `ORDERS`.
    """

    sigma: float
    rate: float
    steps: int
    slack: float = 0.0
    renyi: bool = False


def epsilon(spends: Iterable[Spend], delta: float) -> float:
    """Return the ε of all `spends` together at `delta`; infinity if one had no noise.

    From P ≤ e^λ P', Q' ≤ e^λ Q and (ε', δ') for P' and Q' follows P ≤ e^(ε' + 2λ) Q + e^λ δ'.
    """
    merged = _merged(spends)
    slack = sum(spend.slack * spend.steps for spend in merged)
    delta *= math.exp(-slack)
    if any(spend.renyi for spend in merged):
        return epsilon_rdp(merged, delta) + 2 * slack
    return _epsilon(merged, delta) + 2 * slack


def epsilon_rdp(spends: Iterable[Spend], delta: float, orders: Iterable[float] = ORDERS) -> float:
    """Return the same by Rényi DP: never below the true value, and not as tight."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders=tuple(orders))
    merged = _merged(spends)
    for spend in merged:
        event = GaussianDpEvent(spend.sigma)
        sampled = event if spend.rate == 1 else PoissonSampledDpEvent(spend.rate, event)
        accountant.compose(sampled, spend.steps)
    return float(accountant.get_epsilon(delta)) if merged else 0.0


@lru_cache(maxsize=4096)
def solve_sigma(target: float, delta: float, rate: float, steps: int) -> float:
    """Return the smallest noise multiplier whose ε does not exceed `target`, within 1 %.

    With sampling it is 0.05 at least.

    Parameters
    ----------
    target, delta : float
        ε and δ of all steps together.
    rate : float
        Of Poisson sampling; 1: none.
    steps : int
        How many Gaussian mechanisms.

    Raises
    ------
    ValueError
        If no noise multiplier up to 10^8 does, or something is out of range.
    """
    if not (target > 0 and 0 < delta < 1 and 0 < rate <= 1 and steps >= 1):
        raise ValueError("ε, δ, sampling rate and number of steps must be positive")

    from dp_accounting import get_sigma_gaussian

    def excess(sigma: float) -> float:
        """Return by what factor ε is too large, as a logarithm."""
        found = epsilon([Spend(sigma, rate, steps)], delta)
        return math.log(min(max(found, 1e-300), 1e300) / target)

    # What so many steps are in the limit of a large number: one Gaussian mechanism.
    whole = float(get_sigma_gaussian(target, delta)) * math.sqrt(steps)
    guess = whole if rate == 1 else math.log1p((whole * rate) ** -2) ** -0.5
    least = 0.0 if rate == 1 else _LEAST_NOISE
    low, high = _bracket(excess, max(guess, least), least)
    if high > _MOST_NOISE:
        raise ValueError(f"no noise lets {steps} steps cost no more than {target:g}")
    return low if low == high else _narrowed(excess, low, high)


def _bracket(excess: Callable[[float], float], guess: float, least: float) -> tuple[float, float]:
    """Return noise that is too little and noise that is enough; twice the least, if that is."""
    low = high = guess
    while (over := excess(high)) > 0 and high <= _MOST_NOISE:
        # Noise and ε are about inversely proportional.
        low, high = high, high * math.exp(min(max(over, 0.01), 1.0) + _PRECISION)
    while low == high or (under := excess(low)) <= 0:
        if low <= least:
            return least, least
        under = over if low == high else under
        high = low
        low = max(least, low * math.exp(max(min(under, -0.01), -1.0) - _PRECISION))
    return low, high


def _narrowed(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return noise that is enough, and hardly more; `low` is too little, `high` enough."""
    over, under = excess(low), excess(high)
    side = 0
    while high > low * (1 + _PRECISION):
        share = min(max(over / (over - under), 0.0), 1.0)
        step = math.log(high / low)
        # A little beyond where the line crosses, on the side that moved last: both must close in.
        offset = share * step + (1 if side >= 0 else -1) * _PRECISION / 3
        middle = low * math.exp(min(max(offset, 0.02 * step), 0.98 * step))
        found = excess(middle)
        if found > 0:
            low, over, under = middle, found, under / 2 if side > 0 else under
            side = 1
        else:
            high, under, over = middle, found, over / 2 if side < 0 else over
            side = -1
    return high


@lru_cache(maxsize=4096)
def solve_beside(
    target: float, delta: float, rate: float, steps: int, beside: tuple[Spend, ...]
) -> float:
    """Return the noise multiplier whose ε, with what is spent `beside`, does not exceed `target`.

    Within 0.5 % of the smallest.

    Raises
    ------
    ValueError
        If no noise multiplier does.
    """
    low = solve_sigma(target, delta, rate, steps)
    if not beside:
        return low

    def excess(sigma: float) -> float:
        return epsilon((Spend(sigma, rate, steps), *beside), delta) - target

    if excess(low) <= 0:
        return low
    if epsilon(beside, delta) >= target:
        raise ValueError(f"what is spent besides leaves nothing of {target:g}")
    high = low * 1.1
    while excess(high) > 0:
        low, high = high, high * (high / low) ** 1.5
        if high > _MOST_NOISE:
            raise ValueError(f"no noise lets {steps} steps cost no more than {target:g}")
    while high > low * 1.005:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if excess(middle) <= 0 else (middle, high)
    return high


def gaussian_sigma(target: float, delta: float, count: int) -> float:
    """Return the noise multiplier with which so many unsampled releases cost `target` together.

    The analytic Gaussian mechanism (Balle and Wang 2018), with all releases together as one.
    """
    from dp_accounting import get_sigma_gaussian

    # A little more, lest rounding makes it a little less.
    return float(get_sigma_gaussian(target, delta)) * math.sqrt(count) * (1 + 1e-9)


def _merged(spends: Iterable[Spend]) -> tuple[Spend, ...]:
    """Join spends of one kind: order and splitting do not matter."""
    steps: Counter[Spend] = Counter()
    for spend in spends:
        steps[replace(spend, steps=1)] += spend.steps
    return tuple(sorted(replace(kind, steps=count) for kind, count in steps.items() if count))


@lru_cache(maxsize=4096)
def _epsilon(merged: tuple[Spend, ...], delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    from task.privacy.loss_sums import epsilon_of
    from task.privacy.losses import Kind, TooManyCellsError

    if any(spend.sigma == 0 for spend in merged):
        return math.inf
    # Unsampled Gaussians together are one Gaussian, exactly.
    precision = sum(s.steps / s.sigma**2 for s in merged if s.rate == 1)
    kinds = [Kind(s.sigma, s.rate, s.steps) for s in merged if s.rate < 1]
    if not kinds:
        return float(get_epsilon_gaussian(precision**-0.5, delta)) if precision else 0.0
    if precision:
        kinds.append(Kind(precision**-0.5, 1.0, 1))
    try:
        return epsilon_of(kinds, delta)
    except (TooManyCellsError, ArithmeticError):
        return epsilon_rdp(merged, delta)
