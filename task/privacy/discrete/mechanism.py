"""What one client does to its update before a secure sum, and what the sum means.

Kairouz, Liu, Steinke 2021, algorithms 1 and 2: clip, rotate, scale, round, add integer noise, keep
the remainder modulo 2^b. Privacy rests on the norm of the rounded vector, which is checked on the
integers, and on the noise; neither the rotation's seed nor a wrap-around can harm it, for the
first is an isometry and the second only discards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import FedproofError
from task.privacy.discrete.accounting import LEAST_VARIANCE, Noise, Release
from task.privacy.discrete.keystream import KeyStream
from task.privacy.discrete.rotation import padded, rotate, rotate_back
from task.privacy.discrete.samplers import discrete_gaussian, skellam

_ROUNDING = 1.0
"""√(2 log 1/β) for β = e^(-1/2): of all roundings, at least 1 - β keep the norm bound."""


@dataclass(frozen=True)
class Mechanism:
    """How all clients of a run encode; `design` chooses one.

    Attributes
    ----------
    noise : Noise
        Whose distribution the noise has.
    dimension : int
        Length of an update.
    clip : float
        Norm that no update exceeds.
    bits : int
        b: sums are known modulo 2^b.
    clients : int
        The most who add up.
    granularity : float
        γ: what the integer 1 stands for.
    variance : float
        Of one client's noise, in units of γ².
    """

    noise: Noise
    dimension: int
    clip: float
    bits: int
    clients: int
    granularity: float
    variance: float

    @property
    def norm_bound(self) -> float:
        """The largest norm of a rounded vector, in units of γ (Kairouz et al., theorem 1)."""
        scaled, root = self.clip / self.granularity, math.sqrt(padded(self.dimension))
        likely = scaled**2 + root**2 / 4 + _ROUNDING * (scaled + root / 2)
        return min(scaled + root, math.sqrt(likely))

    @property
    def inflation(self) -> float:
        """By how much rounding makes the sensitivity larger than `clip`: what few bits cost."""
        return self.norm_bound * self.granularity / self.clip

    def release(self, contributors: int, rounds: int = 1) -> Release:
        """Return what sums to which so many clients contributed tell about one of them.

        Parameters
        ----------
        contributors : int
            Clients whose noise is in each sum and unknown to whoever looks: not those who dropped
            out, and not those who collude.
        rounds : int
            How many such sums.
        """
        size = padded(self.dimension)
        return Release(
            noise=self.noise,
            variance=self.variance,
            contributors=contributors,
            clients=self.clients,
            sensitivity=self.norm_bound,
            dimension=size,
            rounds=rounds,
        )


def design(
    dimension: int,
    clip: float,
    bits: int,
    clients: int,
    noise_multiplier: float,
    *,
    noise: Noise = Noise.discrete_gaussian,
    contributors: int | None = None,
    overflow: float = 1e-6,
) -> Mechanism:
    """Choose the finest granularity for which sums do not wrap around.

    A rotated coordinate of a sum of n clipped updates is sub-Gaussian with variance (nc)²/d, its
    rounding with n γ²/4, its noise with n σ²; k standard deviations of all of it have to fit into
    b bits, where k follows from `overflow` by a union bound over the coordinates. (Skellam noise
    has a tail a little heavier, by a factor below 1.2 in probability from a variance of 1000 on.)

    Parameters
    ----------
    dimension, clip, bits, clients
        As in `Mechanism`.
    noise_multiplier : float
        Standard deviation of the noise in a sum over `clip`, as in central differential privacy.
    noise : Noise
        Whose distribution the noise has.
    contributors : int, optional
        So many noises make up the noise that is asked for; more add to it. `clients` unless given.
    overflow : float
        Probability that any coordinate of a sum wraps around, at most.

    Raises
    ------
    FedproofError
        If b bits are too few.
    """
    deviation = noise_multiplier * clip / math.sqrt(contributors or clients)
    size = padded(dimension)
    k = math.sqrt(2 * math.log(2 * size / overflow))
    room = 4.0 ** (bits - 1) - k**2 * clients / 4
    spread = (clients * clip) ** 2 / size + clients * deviation**2
    granularity = k * math.sqrt(spread / room) if room > 0 else math.inf
    variance = (deviation / granularity) ** 2
    if variance < LEAST_VARIANCE:
        raise FedproofError(
            f"sums of {clients} clients do not fit into {bits} bits with noise of {deviation:.3g} "
            "each: raise privacy.bits, or privacy.sigma, or sample fewer clients."
        )
    return Mechanism(noise, dimension, clip, bits, clients, granularity, variance)


def encode(update: Tensor, mechanism: Mechanism, seed: bytes) -> NDArray[np.uint32]:
    """Return one client's noisy vector modulo 2^b, which may be added to others'.

    Parameters
    ----------
    update : Tensor, shape (dimension,)
        What the client contributes.
    mechanism : Mechanism
        The same at all clients.
    seed : bytes
        Of the rotation: public, the same at all clients of a round, another one in each round.

    Returns
    -------
    uint32 array
        Its length is `dimension` padded to a power of two.

    Raises
    ------
    FedproofError
        If the update is not finite.
    ValueError
        If it has another length.
    """
    if update.shape != (mechanism.dimension,):
        raise ValueError(f"an update of shape {tuple(update.shape)}, not {mechanism.dimension}")
    vector = update.detach().to(torch.float64)
    norm = float(torch.linalg.vector_norm(vector))
    if not math.isfinite(norm):
        raise FedproofError(
            "the update holds NaN or infinite values, which cannot be clipped: lower train.lr."
        )
    factor = min(1.0, mechanism.clip / norm) if norm else 1.0
    rotated = rotate(vector * (factor / mechanism.granularity), seed).cpu().numpy()
    integers = round_conditionally(rotated, mechanism.norm_bound, KeyStream())
    draw = discrete_gaussian if mechanism.noise is Noise.discrete_gaussian else skellam
    integers += draw(len(integers), mechanism.variance)
    return (integers & ((1 << mechanism.bits) - 1)).astype(np.uint32)


def decode(total: NDArray[np.uint32], mechanism: Mechanism, seed: bytes) -> Tensor:
    """Return the sum of the updates from the sum of their encodings modulo 2^b.

    Parameters
    ----------
    total : uint32 array, shape (padded dimension,)
        Sum modulo 2^b.
    mechanism, seed
        As for `encode`.

    Returns
    -------
    Tensor of float32, shape (dimension,)
    """
    modulus, half = 1 << mechanism.bits, 1 << (mechanism.bits - 1)
    signed = ((total.astype(np.int64) + half) & (modulus - 1)) - half
    rotated = torch.from_numpy(signed * mechanism.granularity)
    return rotate_back(rotated, mechanism.dimension, seed).to(torch.float32)


def round_conditionally(
    values: NDArray[np.float64], bound: float, stream: KeyStream
) -> NDArray[np.int64]:
    """Round each number up or down at random, without bias, until the whole norm is in bounds.

    The bound on the norm is what privacy rests on; the condition shifts the mean by next to
    nothing.
    """
    floors = np.floor(values)
    fractions = values - floors
    while True:
        rounded = floors + (stream.uniform(len(values)) < fractions)
        # A little below the bound, so that no rounding of this sum matters.
        if float(rounded @ rounded) <= bound**2 * (1 - 1e-9):
            return rounded.astype(np.int64)
