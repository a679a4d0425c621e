"""What a sum of updates must look like to be taken for one.

Every plaintext begins with a 1, so that sums hold how many were added; the first plaintext goes on
with the client's weight; the values follow, each times weight / largest weight, and zeros fill up
the last one. A sum is refused unless all its plaintexts hold the same count, the filling is still
zero, and neither weight nor values are beyond what so many clients can have sent. Ciphertexts that
were damaged or made with another key decrypt to what looks random, and do not pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError

N = TypeVar("N", np.int64, np.float64)

_DAMAGED = (
    "the encrypted sum was damaged on its way or made with another key: let the server send it "
    "again, or start anew with one key for all clients."
)


@dataclass(frozen=True)
class Average:
    """What a decrypted sum holds.

    Attributes
    ----------
    values : float64 array, shape (size,)
        Weighted mean of the clipped updates.
    weight : int
        Sum of their weights.
    count : int
        How many there were.
    error : float
        No value is further from the true mean.
    """

    values: NDArray[np.float64]
    weight: int
    count: int
    error: float


@dataclass(frozen=True)
class Cohort:
    """What is known of updates before there are any.

    Attributes
    ----------
    size : int
        Values in one.
    clients : int
        The most that are added up.
    weight : int
        The most that one may weigh.
    least : int
        The fewest whose mean may be seen.
    """

    size: int
    clients: int
    weight: int
    least: int = 2

    def share(self, weight: int) -> float:
        """Return a client's weight as a share of the largest one.

        Raises
        ------
        FedproofError
            If it is not allowed.
        """
        if not 1 <= weight <= self.weight:
            raise FedproofError(
                f"an update of weight {weight} cannot be encrypted where weights go from 1 to "
                f"{self.weight}: raise aggregation.max_weight."
            )
        return weight / self.weight

    def lay_out(self, weight: float, slots: NDArray[N], width: int) -> NDArray[N]:
        """Return plaintexts of `width` numbers, shape (plaintexts, width)."""
        body = width - 1
        rows = -(-(1 + len(slots)) // body)
        stream = np.zeros(rows * body, slots.dtype)
        stream[0] = weight
        stream[1 : 1 + len(slots)] = slots
        heads = np.ones((rows, 1), slots.dtype)
        return np.concatenate([heads, stream.reshape(rows, body)], axis=1)

    def take_apart(
        self, plaintexts: NDArray[N], length: int
    ) -> tuple[NDArray[N], NDArray[N], NDArray[N], N]:
        """Return heads, slots, filling and weight of plaintexts, whose shape must be right."""
        body = plaintexts.shape[1] - 1
        if plaintexts.shape[0] != -(-(1 + length) // body):
            raise FedproofError(
                f"the encrypted sum has {plaintexts.shape[0]} plaintexts, not those of "
                f"{self.size} values: all clients must train the same model."
            )
        stream = plaintexts[:, 1:].reshape(-1)
        return plaintexts[:, 0], stream[1 : 1 + length], stream[1 + length :], stream[0]

    def check(self, counts: NDArray[np.int64], weight: int, sound: bool) -> int:
        """Return how many updates there are; refuse a sum that is none, or of too few.

        `sound` is what else has to hold.
        """
        count = int(counts[0])
        possible = 1 <= count <= self.clients and count <= weight <= count * self.weight
        if np.any(counts != count) or not possible or not sound:
            raise FedproofError(_DAMAGED)
        if count < self.least:
            raise FedproofError(
                f"the encrypted sum is that of {count} client(s), but fewer than {self.least} are "
                "not shown: sample more clients."
            )
        return count
