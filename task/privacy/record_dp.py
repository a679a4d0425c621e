"""Record-level differential privacy: each client trains by DP-SGD, with noise of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conf.errors import FedproofError
from conf.schema import Settings
from task.options import choice, real, whole
from task.privacy.accounting import Spend
from task.privacy.adaptive import AdaptiveClip
from task.privacy.base import Privacy, below_share
from task.privacy.dpsgd import Mechanism, batch_plan


class RecordDP(Privacy):
    """Settings of ``privacy=record_dp``, checked.

    Raises
    ------
    FedproofError
        If the settings cannot protect anybody.
    """

    unit = "record"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        options: Mapping[str, Any] = settings.privacy.options
        self._settings = settings
        self._clip = real(options, "privacy.clip", positive=True)
        self._per_layer = choice(options, "privacy.clipping", ("flat", "per_layer")) == "per_layer"
        self._physical = None
        if options["physical_batch"] is not None:
            self._physical = whole(options, "privacy.physical_batch", 1)
        if self._per_layer and self._quantile:
            raise FedproofError(
                "privacy.quantile adapts one clip for the whole gradient: leave "
                "privacy.clipping=per_layer out."
            )
        if settings.train.max_grad_norm is not None:
            raise FedproofError(
                "train.max_grad_norm clips sums of gradients, privacy.clip each record's: leave "
                "train.max_grad_norm out."
            )

    def mechanism(self, client: str, rows: int) -> Mechanism:
        """Return what a client does in a round that tells others it has so many training rows.

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
        below_share(self.delta, rows, f"rows of client '{client}'")
        rate, steps = batch_plan(rows, config)
        sigma = self._noise(rate, steps * self._settings.rounds)
        adaptive = None
        if self._quantile:
            adaptive = AdaptiveClip(*self._quantile, sigma, rate * rows)
        return Mechanism(
            sigma, self._clip, self._per_layer, rate, steps,
            physical=self._physical, adaptive=adaptive, rows=rows,
        )  # fmt: skip

    def over(self, rounds: int, client: str, rows: int) -> Spend:
        """Return what so many rounds cost a client that takes part in all of them.

        Raises
        ------
        FedproofError
            If it has too few rows for the settings.
        """
        spend = self.mechanism(client, rows).spend
        return replace(spend, steps=spend.steps * rounds)


build = RecordDP
