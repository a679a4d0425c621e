"""Record-level differential privacy: each client trains by DP-SGD, with noise of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from conf.errors import FedproofError
from conf.schema import Scaling, Settings
from task.options import choice, real
from task.privacy.accounting import solve_sigma
from task.privacy.dpsgd import Mechanism, batch_plan


class RecordDP:
    """Settings of ``privacy=record_dp``, checked.

    Attributes
    ----------
    unit : str
        Whom the noise protects.
    delta : float
        Of every ε.
    max_epsilon : float
        What a client's ledger may not pass.

    Raises
    ------
    FedproofError
        If the settings cannot protect anybody.
    """

    unit = "record"

    def __init__(self, settings: Settings) -> None:
        options: Mapping[str, Any] = settings.privacy.options
        self._settings = settings
        given = [key for key in ("sigma", "epsilon") if options[key] is not None]
        if len(given) != 1:
            raise FedproofError(
                "privacy=record_dp needs either privacy.sigma, the noise multiplier, or "
                f"privacy.epsilon, what all rounds may cost: {len(given)} of them are given."
            )
        self._value = real(options, f"privacy.{given[0]}", positive=True)
        self._solves = given[0] == "epsilon"
        self.delta = real(options, "privacy.delta", positive=True, below=1.0)
        self._clip = real(options, "privacy.clip", positive=True)
        self._per_layer = choice(options, "privacy.clipping", ("flat", "per_layer")) == "per_layer"
        self.max_epsilon = math.inf
        if options["max_epsilon"] is not None:
            self.max_epsilon = real(options, "privacy.max_epsilon", positive=True)
        if settings.task.scaling is Scaling.federated:
            raise FedproofError(
                "task.scaling=federated tells sums over records without noise, which "
                "privacy=record_dp does not allow: choose task.scaling=local."
            )
        if settings.train.keep_optimizer:
            raise FedproofError(
                "train.keep_optimizer=true and privacy=record_dp do not go together yet: leave one "
                "of them out."
            )
        if settings.train.max_grad_norm is not None:
            raise FedproofError(
                "train.max_grad_norm clips sums of gradients, privacy.clip each record's: leave "
                "train.max_grad_norm out."
            )

    def mechanism(self, client: str, rows: int) -> Mechanism:
        """Return what a client with so many training rows does in a round.

        Raises
        ------
        FedproofError
            If it has too few rows for the settings.
        """
        config = self._settings.train
        if rows < config.batch_size:
            raise FedproofError(
                f"client '{client}' has {rows} training rows, fewer than "
                f"train.batch_size={config.batch_size}: every batch would be all of them."
            )
        if self.delta >= 1 / rows:
            raise FedproofError(
                f"privacy.delta={self.delta:g} must be below 1 / rows = {1 / rows:.3g} of client "
                f"'{client}': or one of its records may be told outright."
            )
        rate, steps = batch_plan(rows, config)
        sigma = self._value
        if self._solves:
            try:
                sigma = solve_sigma(self._value, self.delta, rate, steps * self._settings.rounds)
            except ValueError as error:
                raise FedproofError(f"privacy.epsilon={self._value:g}: {error}.") from None
        return Mechanism(sigma, self._clip, self._per_layer, rate, steps)


build = RecordDP
