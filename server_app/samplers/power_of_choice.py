"""Clients with high losses first (Cho, Wang and Joshi 2022, power-of-choice).

Their variant that asks nobody for a loss just to choose: candidates are compared by the mean
training loss of the last round that they took part in, and those that never did come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.federation.sampling import size_of
from server_app.samplers._base import Sampler, require_seen
from task.options import real


class PowerOfChoice(Sampler):
    """Draws candidates in proportion to rows, and takes those with the highest known losses.

    Parameters
    ----------
    settings : Settings
        With ``sampling.candidates``: how many per client of the cohort (d/m in the paper).
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._candidates = real(settings.sampling.options, "sampling.candidates")
        if self._candidates < 1:
            raise FedproofError(
                f"sampling.candidates must be at least 1 per client, got {self._candidates:g}."
            )
        self._losses: dict[str, float] = {}

    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Draw candidates; of equal losses, the first drawn goes first."""
        size = size_of(len(rows), fraction)
        count = min(len(rows), round(size * self._candidates))
        candidates = self._ordered(rows, count, "train", number, attempt)
        candidates.sort(key=lambda client: -self._losses.get(client, float("inf")))
        return sorted(candidates[:size])

    def learn(self, losses: Mapping[str, float]) -> None:
        """Remember the last losses."""
        self._losses |= losses

    def state(self) -> dict[str, Any]:
        """Return the losses."""
        return {"losses": self._losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the losses up again."""
        self._losses = dict(state["losses"])


def build(settings: Settings) -> Sampler:
    """Build it.

    Raises
    ------
    FedproofError
        If nobody tells a loss.
    """
    require_seen(settings, "loss")
    if settings.privacy.name != "none":
        raise FedproofError(
            "sampling=power_of_choice needs each client's training loss, which no client tells "
            f"with privacy={settings.privacy.name}: leave sampling= out."
        )
    return PowerOfChoice(settings)
