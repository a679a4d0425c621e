"""What noisy integer sums cost: ε of the noise of those who contributed.

Whom it protects: a client who took part, against everybody who sees sums, the server included.
`RELATION`: its update is replaced by zero. That it took part is no secret (the server of a secure
sum knows), so sampling clients amplifies nothing here. Against others who do not know who took
part, the known theorems of amplification do not hold either: they need noise that does not depend
on the sample, and here each client brings its own, so that the sum's spread tells how many there
were. What is sound, and needs no secrecy: a round costs nothing to a client who took no part in it.

Two ways to ε. Rényi divergences as in the papers, converted by dp-accounting. And for the discrete
Gaussian a tight one: the sum is a processed Gaussian, up to a known factor. Take a Gaussian of
variance v and, where it falls, draw an integer from the discrete Gaussian of variance s² around
that point. By Poisson summation, an integer's probability is that of N_Z(0, v + s²) up to a factor
e^±κ with κ ≤ 6 exp(-2π²s²); and n discrete Gaussians of variance σ² add up to N_Z(0, nσ²), up to
e^(±τ/2) (Kairouz et al., before proposition 14). With v = nσ² - s² the sum in d dimensions is
within e^±λ, λ = d(τ/2 + κ), of a Gaussian mechanism of variance v whose output was processed, and
ε(δ) ≤ ε_Gauss(δ e^-λ) + 2λ. s² is chosen for dκ = 10^-9; from σ = 3 on, τ is below 10^-37 n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from task.privacy.accounting import ORDERS, Spend
from task.privacy.accounting import epsilon as epsilon_gaussian

RELATION = "zero-out-one"
ACCOUNTANTS = {
    "discrete_gaussian": "the Gaussian that the sum is a processed form of (dp-accounting)",
    "skellam": "Rényi DP (Agarwal et al. 2021, dp-accounting)",
}
_ORDERS = (*range(2, 129), 144, 160, 192, 224, 256, 320, 384, 448, 512, 768, 1024)
LEAST_VARIANCE = 0.25
"""Variance below which sums of discrete Gaussians are no longer close to one (prop. 14)."""
_SLACK = 1e-9
"""dκ that smoothing may cost a release; s² follows from it."""


class Noise(StrEnum):
    """Distributions of a client's noise."""

    discrete_gaussian = "discrete_gaussian"
    skellam = "skellam"


@dataclass(frozen=True, order=True)
class Release:
    """Noisy sums of one kind that were released.

    Attributes
    ----------
    noise : Noise
        Whose distribution each noise has.
    variance : float
        Of one contributor's noise, in integers.
    contributors : int
        How many noises are in a sum and unknown to whoever looks at it.
    clients : int
        The most who could have contributed.
    sensitivity : float
        Largest norm of a contributor's vector of integers.
    dimension : int
        Length of the sums.
    rounds : int
        How many sums.
    """

    noise: Noise
    variance: float
    contributors: int
    clients: int
    sensitivity: float
    dimension: int
    rounds: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.contributors <= self.clients:
            raise ValueError(f"{self.contributors} contributors of at most {self.clients} clients")
        if self.noise is Noise.discrete_gaussian and self.variance < LEAST_VARIANCE:
            raise ValueError(f"a variance of {self.variance:g}, for which nothing is known")

    @property
    def l1(self) -> float:
        """Largest 1-norm: vectors of integers have |x|₁ ≤ |x|₂², all have |x|₁ ≤ √d |x|₂."""
        return self.sensitivity * min(math.sqrt(self.dimension), self.sensitivity)

    @property
    def tau(self) -> float:
        """τ: what keeps a sum of discrete Gaussians from being one (Kairouz et al., prop. 14).

        For all clients, although fewer have less of it: so ε never falls when one drops out.
        """
        k = np.arange(1, self.clients)
        return float(10 * np.exp(-2 * math.pi**2 * self.variance * k / (k + 1)).sum())


def epsilon(releases: Iterable[Release], delta: float) -> float:
    """Return the ε of all `releases` together at `delta`; infinity if one had no noise.

    The tight bound where all noise is discrete Gaussian, unless Rényi DP gives a smaller one.
    """
    done = [release for release in releases if release.rounds]
    bound = epsilon_rdp(done, delta)
    if any(release.noise is not Noise.discrete_gaussian for release in done):
        return bound
    pairs = [as_gaussian(release) for release in done]
    slack = sum(pair[1] for pair in pairs)
    if slack > 1:
        return bound
    spends = [pair[0] for pair in pairs]
    return min(bound, epsilon_gaussian(spends, delta * math.exp(-slack)) + 2 * slack)


def epsilon_rdp(releases: Iterable[Release], delta: float) -> float:
    """Return the same by Rényi DP: never below the true value, and not as tight."""
    from dp_accounting.rdp import compute_epsilon

    done = [release for release in releases if release.rounds]
    if not done:
        return 0.0
    if any(release.contributors == 0 for release in done):
        return math.inf
    total = np.sum([release.rounds * rdp(release, _ORDERS) for release in done], axis=0)
    return float(compute_epsilon(_ORDERS, total, delta)[0])


def rdp(release: Release, orders: Sequence[int]) -> NDArray[np.float64]:
    """Return the Rényi divergences of one sum, at whole orders α ≥ 2.

    Kairouz, Liu, Steinke 2021, proposition 14; Agarwal, Kairouz, Liu 2021, the bound for
    several dimensions (section 3).
    """
    alpha = np.asarray(orders, np.float64)
    variance = release.contributors * release.variance
    square = release.sensitivity**2 / variance
    gaussian = alpha / 2 * square
    if release.noise is Noise.skellam:
        small = (2 * alpha - 1) * square / (4 * variance) + 1.5 * release.l1 / variance**2
        return np.asarray(gaussian + np.minimum(small, 1.5 * release.l1 / variance))
    tau, size = release.tau, release.dimension
    bounds = (
        gaussian + tau * size,
        gaussian + alpha * (release.l1 / math.sqrt(variance) * tau + tau**2 * size / 2),
        alpha / 2 * (math.sqrt(square) + math.sqrt(size) * tau) ** 2,
    )
    return np.asarray(np.minimum.reduce(bounds))


def as_gaussian(release: Release) -> tuple[Spend, float]:
    """Return the Gaussian mechanism that a sum of discrete Gaussians is a processed form of.

    Returns
    -------
    spend : Spend
        Its noise multiplier is 0 where the noise is too small for that.
    slack : float
        λ, over all rounds: ε(δ) is at most that of the Gaussian at δ e^-λ, plus 2λ.
    """
    if release.noise is not Noise.discrete_gaussian:
        raise ValueError(f"{release.noise} is no discrete Gaussian")
    values = release.dimension * release.rounds
    smoothing = math.log(6 * values / _SLACK) / (2 * math.pi**2)
    variance = release.contributors * release.variance - smoothing
    sigma = math.sqrt(max(variance, 0.0)) / release.sensitivity
    return Spend(sigma, 1.0, release.rounds), values * release.tau / 2 + _SLACK


def as_spend(release: Release) -> Spend:
    """Return what a release costs, such that it composes with Gaussian mechanisms.

    Sums with Skellam noise cost no more than the Gaussian mechanism whose Rényi divergences are
    at least as large at every order that `accounting.epsilon_rdp` looks at.
    """
    if not release.contributors:
        return Spend(0.0, 1.0, release.rounds)
    if release.noise is Noise.discrete_gaussian:
        spend, slack = as_gaussian(release)
        return replace(spend, slack=slack / release.rounds)
    largest = float(np.max(2 * rdp(release, ORDERS) / np.asarray(ORDERS, np.float64)))
    return Spend(largest**-0.5, 1.0, release.rounds, renyi=True)
