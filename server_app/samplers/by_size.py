"""Clients with more training rows more often, and each answer about alike.

Li et al. 2020 ("On the Convergence of FedAvg on Non-IID Data"), scheme I, draws with replacement in
proportion to rows and averages evenly. Here nobody is drawn twice: systematic sampling (Madow 1949)
takes client k with probability ``pi_k = min(1, C n_k)`` exactly, and it counts ``n_k / pi_k``
(Horvitz and Thompson 1952), so that sums over cohorts are unbiased for those over everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.federation.sampling import size_of
from server_app.samplers._base import Sampler, require_seen
from task.privacy.policy import mechanism_of
from task.seeding import generator


class BySize(Sampler):
    """Draws in proportion to rows; who has more than a cohort's share always takes part."""

    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Draw systematically from clients in random order."""
        names = sorted(rows)
        chances = inclusion([rows[name] for name in names], size_of(len(names), fraction))
        chance = generator(self._seed, "sample", "train", number, attempt)
        order = chance.permutation(len(names))
        ends = np.cumsum(chances[order])
        # Rounded, because a sum that ends at 2.9999999 would lose the last client.
        points = np.floor(np.concatenate([[0.0], ends]) + chance.random() + 1e-9)
        return sorted(names[i] for i in order[np.diff(points) > 0])

    def weights(self, rows: Mapping[str, int], cohort: Sequence[str]) -> dict[str, int]:
        """Return ``n_k / pi_k``, rounded: the same for all who are not always drawn."""
        names = sorted(rows)
        counts = [rows[name] for name in names]
        chances = dict(zip(names, inclusion(counts, len(cohort)), strict=True))
        return {name: max(1, round(rows[name] / chances[name])) for name in cohort}


def inclusion(rows: Sequence[int], size: int) -> NDArray[np.float64]:
    """Return the probability with which each client is drawn; their sum is `size`.

    Parameters
    ----------
    rows : sequence of int
        Of each client, at least 1.
    size : int
        Clients to draw, at most as many as there are.
    """
    counts = np.asarray(rows, np.float64)
    always = np.zeros(len(counts), bool)
    while True:
        left = size - always.sum()
        chances = np.where(always, 1.0, left * counts / max(counts[~always].sum(), 1.0))
        if not (over := (chances >= 1) & ~always).any():
            return chances
        always |= over


def build(settings: Settings) -> Sampler:
    """Build it.

    Raises
    ------
    FedproofError
        If sizes are hidden, or weights are those that noise was made for.
    """
    require_seen(settings, "number of rows")
    privacy = mechanism_of(settings)
    if privacy is not None and privacy.unit == "client":
        raise FedproofError(
            "sampling=by_size changes what clients weigh, and the noise of "
            f"privacy={settings.privacy.name} fits the weights as they are: leave sampling= out."
        )
    return BySize(settings)
