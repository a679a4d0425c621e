"""How many rows a client has, as others may know it: released once with noise, then used as is.

Whether a row is there moves the training rows by one or the held-out rows by one, so the two
counts together have sensitivity 1 and are one Gaussian mechanism. They are whole numbers, and so is
what leaves: rounding noisy numbers that lie on one grid whatever the counts is post-processing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from task.privacy.accounting import Spend
from task.privacy.ledger import Entry
from task.privacy.noise import SecureNoise

COUNT_DEVIATION = 10.0
"""Standard deviation of the noise on either count, in rows: of a few hundred rows a few percent.

Alone it costs ε = 0.34 at δ = 1e-5; beside training that costs 2, some 0.04.
"""
SPEND = Spend(COUNT_DEVIATION, 1.0, 1)
UNIT = "record"
"""Whom the noise protects."""
_FACT = "counts"


@dataclass(frozen=True)
class RowCounts:
    """A client's numbers of training and held-out rows."""

    train: int
    test: int

    def noised(self, noise: SecureNoise) -> RowCounts:
        """Return counts that may leave."""
        train, test = noise.gaussian(2, COUNT_DEVIATION)
        return RowCounts(max(0, round(self.train + train)), max(0, round(self.test + test)))

    @property
    def facts(self) -> dict[str, list[int]]:
        """What a ledger's entry says of their release."""
        return {_FACT: [self.train, self.test]}


def released_counts(entries: Iterable[Entry]) -> RowCounts | None:
    """Return the counts that were first released in some entries; None if none were."""
    told = (entry.facts[_FACT] for entry in entries if _FACT in entry.facts)
    return next((RowCounts(*map(int, counts)) for counts in told), None)
