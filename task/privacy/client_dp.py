"""Client-level differential privacy: nobody can tell whether a client took part at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from conf.errors import FedproofError
from conf.schema import Settings
from task.options import choice, real, whole
from task.privacy.accounting import Spend
from task.privacy.adaptive import AdaptiveClip
from task.privacy.base import Privacy, secret_cohorts
from task.privacy.correlated import NOISES
from task.privacy.noise import SecureNoise

_ROUNDING = 1e-6
"""Updates are shortened by so much more, lest rounding makes them longer than the clip."""


@dataclass(frozen=True)
class ClippedUpdate:
    """What a client does with its update.

    Attributes
    ----------
    sigma : float
        Noise multiplier.
    clip : float
        Norm that the update must not exceed.
    rate : float
        Probability with which the client takes part in a round; 1 if others may know that it did.
    local : bool
        Whether it adds the noise itself.
    weight : int
        Of its update.
    rounds : int
        That it accounts for.
    """

    sigma: float
    clip: float
    rate: float
    local: bool
    weight: int
    rounds: int = 1

    @property
    def spend(self) -> Spend:
        """What its participation releases."""
        return Spend(self.sigma, self.rate, self.rounds)

    def clipped(self, update: Tensor) -> tuple[Tensor, bool]:
        """Return an update that does not exceed the clip, and whether it did not before.

        Raises
        ------
        FedproofError
            If it is not finite.
        """
        return clipped(update, self.clip)

    def noised(self, update: Tensor) -> Tensor:
        """Return a clipped update with noise of its own."""
        values = update.double().cpu().numpy()
        noised = SecureNoise().noised(values, self.sigma * self.clip)
        return torch.from_numpy(noised).to(update)


class ClientDP(Privacy):
    """Settings of ``privacy=client_dp``, checked.

    Attributes
    ----------
    clip : float
        Norm that no update exceeds, at first.
    central : bool
        Whether the server adds the noise.
    rate : float
        Probability with which a client takes part, as far as it counts for privacy.
    noise : str
        What the noise of one round has to do with that of another (`correlated.NOISES`).
    max_weight : int
        The most that an update weighs.

    Raises
    ------
    FedproofError
        If the settings cannot protect anybody.
    """

    unit = "client"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        options: Mapping[str, Any] = settings.privacy.options
        self._rounds = settings.rounds
        self.clip = real(options, "privacy.clip", positive=True)
        self.central = choice(options, "privacy.placement", ("central", "local")) == "central"
        self.noise = choice(options, "privacy.noise", tuple(NOISES))
        self.separation = whole(options, "privacy.separation", 1)
        self.max_weight = 1
        if options["max_rows"] is not None:
            self.max_weight = whole(options, "privacy.max_rows", 1)
        self.sampled = secret_cohorts(settings)
        self.rate = settings.federation.fraction if self.sampled else 1.0
        self._check(settings)

    def _check(self, settings: Settings) -> None:
        if not self.central and (self.noise != "independent" or self.max_weight > 1):
            raise FedproofError(
                "privacy.placement=local noises every update by itself: leave privacy.noise and "
                "privacy.max_rows out."
            )
        if self._quantile and not self.sampled:
            raise FedproofError(
                "privacy.quantile needs privacy.placement=central and privacy.noise=independent: "
                "other noise is made for one clip."
            )
        if self.noise == "independent" and self.separation > 1:
            raise FedproofError(
                "privacy.separation is for privacy.noise=tree and banded: leave it out."
            )
        fraction = settings.federation.fraction
        if fraction * self.separation > 1 + 1e-9:
            raise FedproofError(
                f"privacy.separation={self.separation} keeps clients out for so many rounds: "
                f"federation.fraction={fraction:g} must not exceed {1 / self.separation:.3g}."
            )

    @cached_property
    def sigma(self) -> float:
        """Noise multiplier, given or solved for ``privacy.epsilon``.

        Raises
        ------
        FedproofError
            If no noise is enough.
        """
        return self._noise(self.rate, self._participations(self._rounds))

    def over(self, rounds: int, client: str = "", rows: int = 1) -> Spend:
        """Return what so many rounds cost a client that takes part as often as may be."""
        del client, rows
        return Spend(self.sigma, self.rate, self._participations(rounds))

    def _participations(self, rounds: int) -> int:
        return math.ceil(rounds / self.separation)

    def weight(self, rows: int) -> int:
        """Return what a client's update weighs."""
        return min(rows, self.max_weight)

    def adaptive(self, expected: float) -> AdaptiveClip | None:
        """Return how the clip adapts, for so many clients in expectation."""
        return AdaptiveClip(*self._quantile, self.sigma, expected) if self._quantile else None

    def mechanism(self, client: str, rows: int) -> ClippedUpdate:
        """Return what a client with so many training rows does in a round."""
        del client
        weight = self.weight(rows)
        return ClippedUpdate(self.sigma, self.clip, self.rate, not self.central, weight)


def clipped(update: Tensor, clip: float) -> tuple[Tensor, bool]:
    """Return an update whose norm does not exceed `clip`, and whether it did not before.

    Raises
    ------
    FedproofError
        If it is not finite.
    """
    norm = float(update.double().norm())
    if not math.isfinite(norm):
        raise FedproofError("its update holds NaN or infinity: lower train.lr.")
    if norm <= clip:
        return update, True
    return update * (clip / norm * (1 - _ROUNDING)), False


def require_protectable(module: nn.Module) -> None:
    """Refuse a model that learns something besides its parameters, or has one under two names.

    Raises
    ------
    FedproofError
        If it has BatchNorm, or weights that are tied.
    """
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
        raise FedproofError(
            "privacy=client_dp protects trainable parameters, and BatchNorm's running statistics "
            "are none: choose a model with GroupNorm."
        )
    once = dict(module.named_parameters())
    tied = [n for n, _ in module.named_parameters(remove_duplicate=False) if n not in once]
    if tied:
        # Counted twice they would be clipped and noised twice, into two; counted once, one is lost.
        raise FedproofError(
            f"privacy=client_dp noises each weight by itself, and '{tied[0]}' is another one's, "
            "too: give it weights of its own."
        )


build = ClientDP
