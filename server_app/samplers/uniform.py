"""Every client alike, without replacement (McMahan et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

from conf.schema import Settings
from server_app.federation.sampling import sample
from server_app.samplers._base import Sampler


class Uniform(Sampler):
    """Draws a share of the clients."""

    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Draw by seed, round and ids."""
        return sample(list(rows), fraction, self._seed, "train", number, attempt)


def build(settings: Settings) -> Sampler:
    """Build it."""
    return Uniform(settings)
