"""Noise for sums that are released round after round, accounted without any sampling.

Strategies add up the rounds' sums, so what counts is the noise on sums over rounds. Noise that
later rounds partly take back makes that smaller at the same privacy. All kinds here cost a client
one Gaussian mechanism, with the noise multiplier that they were given, per participation, if its
participations lie at least `separation` rounds apart.
"""

from __future__ import annotations

import itertools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from task.privacy.noise import SecureNoise, to_grid


class Noise(ABC):
    """A sequence of noise vectors.

    Parameters
    ----------
    separation : int
        Fewest rounds from one participation of a client to its next.

    Attributes
    ----------
    state : dict of str to Tensor
        What later noise depends on, for a checkpoint; as secret as what the noise hides.
    """

    def __init__(self, separation: int) -> None:
        self._separation = separation
        self._stream = SecureNoise()
        self.state: dict[str, Tensor] = {}

    def next(self, size: int, deviation: float) -> Tensor:
        """Return a round's noise, shape (size,), in float64.

        Parameters
        ----------
        size : int
            Length of the sums.
        deviation : float
            Noise multiplier times sensitivity.
        """
        return self._correlated(lambda scale: self._fresh(size, scale * deviation))

    def rounded(self, total: Tensor, deviation: float) -> Tensor:
        """Return a sum such that its last digits do not tell it from others once noise is added.

        The argument of `task.privacy.noise` holds for independent and tree noise, whose vectors are
        sums of what is drawn. Banded noise is a combination with real coefficients: there it hangs
        on the earlier vectors, which nobody else has.
        """
        return torch.from_numpy(to_grid(total.numpy(), self._scale * deviation))

    @property
    def _scale(self) -> float:
        """Deviation of what is drawn, over that of independent noise."""
        return 1.0

    @abstractmethod
    def _correlated(self, fresh: Callable[[float], Tensor]) -> Tensor:
        """Return the next vector, from independent ones that `fresh` returns at some scale."""

    def _fresh(self, size: int, deviation: float) -> Tensor:
        return torch.from_numpy(self._stream.gaussian(size, deviation))


class Independent(Noise):
    """New noise in every round."""

    def _correlated(self, fresh: Callable[[float], Tensor]) -> Tensor:
        return fresh(1.0)


class Tree(Noise):
    """Binary trees over `separation` rounds each (Dwork et al. 2010; Kairouz et al. 2021, DP-FTRL).

    A sum over a tree's first t rounds carries the noise of one node for every one in t's binary
    digits. A client takes part once per tree, and is in one node of every level. The state holds
    those nodes by level, and as "done" the rounds of this tree so far.
    """

    @property
    def _scale(self) -> float:
        return math.sqrt(self._separation.bit_length())

    def _correlated(self, fresh: Callable[[float], Tensor]) -> Tensor:
        done = int(self.state.pop("done", torch.tensor(0))) + 1
        noise = fresh(self._scale)
        level = (done & -done).bit_length() - 1
        node = noise.clone()
        for below in range(level):
            noise.sub_(self.state.pop(str(below)))
        # When the tree is full, its noise stays, and the next round starts another.
        self.state[str(level)] = node
        self.state = {**self.state, "done": torch.tensor(done)} if done < self._separation else {}
        return noise


class Banded(Noise):
    """Banded square-root factorisation (Choquette-Choo et al. 2023; Kalinin and Lampert 2024).

    Noise ``inv(C) z`` with independent z, where C is the Toeplitz matrix with the first
    `separation` coefficients of ``(1 - x)^(-1/2)``, scaled to columns of norm one. Participations
    that far apart meet no common row of C, so each costs one Gaussian mechanism. The state holds
    the last vectors by their age.
    """

    @cached_property
    def band(self) -> list[float]:
        """C's first column."""
        factors = [1.0, *(1 - 0.5 / k for k in range(1, self._separation))]
        band = list(itertools.accumulate(factors, operator.mul))
        return [value / math.hypot(*band) for value in band]

    def _correlated(self, fresh: Callable[[float], Tensor]) -> Tensor:
        first, *later = self.band
        past = [self.state[str(age)] for age in range(len(self.state))]
        noise = fresh(1.0)
        for coefficient, vector in zip(later, past, strict=False):
            noise.sub_(vector, alpha=coefficient)
        noise.div_(first)
        latest = [noise.clone(), *past][: len(later)]
        self.state = {str(age): vector for age, vector in enumerate(latest)}
        return noise


NOISES: Mapping[str, type[Noise]] = {"independent": Independent, "tree": Tree, "banded": Banded}
