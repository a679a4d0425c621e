"""Numbers as integers for BFV: sums are exact, several values share a slot."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.he.cohort import Average, Cohort
from task.he.contexts import Parameters, Scheme
from task.he.quantize import Integers, Quantizer

NOISE = 21
"""No coefficient of a fresh ciphertext's error is larger: SEAL draws a centred binomial of 42."""
_SMALLEST = 30
"""Bits of the smallest plain modulus: primes of that size lie close together."""
_LARGEST = 59
"""Bits of the largest that SEAL takes."""
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""Enough for a Miller-Rabin test to be exact below 2^64."""


class ExactPacking:
    """How updates become plaintexts of integers, and sums of them a mean.

    Values are shifted to be positive, so that the sum of n needs no sign and ⌈log₂ n⌉ more bits
    than one value. It gets them: no value reaches its neighbour, no slot the plain modulus, and the
    errors of n ciphertexts stay below what decryption rounds away.

    Parameters
    ----------
    cohort : Cohort
    quantizer : Quantizer
        Its integers are what is added up.
    per_slot : int
        Values in a slot: twice as many halve the traffic, and leave each half the bits.
    degree, coefficient_bits
        As in `Parameters`.

    Raises
    ------
    FedproofError
        If the numbers do not fit.
    """

    def __init__(
        self,
        cohort: Cohort,
        quantizer: Quantizer,
        *,
        per_slot: int = 1,
        degree: int = 8192,
        coefficient_bits: tuple[int, ...] = (60, 60),
    ) -> None:
        self.cohort, self.quantizer = cohort, quantizer
        self._width = (2 * cohort.clients * quantizer.most).bit_length()
        self._shifts = self._width * np.arange(per_slot)
        self._slots = -(-cohort.size // per_slot)
        needed = max(per_slot * self._width, (cohort.clients * cohort.weight).bit_length())
        room = room_of(cohort.clients, coefficient_bits)
        if max(needed, _SMALLEST) > room:
            raise FedproofError(
                f"sums of {cohort.clients} clients with {per_slot} value(s) of {quantizer.bits} "
                f"bits in a slot and weights up to {cohort.weight} need {needed} bits of {room}: "
                "lower aggregation.bits, aggregation.per_slot or aggregation.max_clients."
            )
        # All that errors leave, so that one key serves whatever is packed for as many clients.
        modulus = batching_prime(room, degree)
        self.parameters = Parameters(Scheme.bfv, degree, coefficient_bits, modulus)

    def pack(self, values: NDArray[np.floating], weight: int) -> Integers:
        """Return the plaintexts of an update, shape (plaintexts, degree).

        Raises
        ------
        FedproofError
            If a value is not finite or the weight not allowed.
        """
        fields = np.zeros((self._slots, len(self._shifts)), np.int64)
        share = self.cohort.share(weight)
        fields.reshape(-1)[: self.cohort.size] = self.quantizer.encode(values, share)
        fields += self.quantizer.most
        fields <<= self._shifts
        return self.cohort.lay_out(weight, fields.sum(1), self.parameters.slots)

    def unpack(self, plaintexts: Integers) -> Average:
        """Read a decrypted sum.

        Raises
        ------
        FedproofError
            If it is none, or one of too few updates.
        """
        # TenSEAL returns the upper half of the integers modulo t as negative ones.
        unsigned = plaintexts % self.parameters.plain_modulus
        heads, slots, filling, total = self.cohort.take_apart(unsigned, self._slots)
        weight, most = int(total), 2 * int(heads[0]) * self.quantizer.most
        fields = (slots[:, None] >> self._shifts) & ((1 << self._width) - 1)
        beyond = slots >> (self._width * len(self._shifts))
        sound = not filling.any() and not beyond.any() and int(fields.max()) <= most
        count = self.cohort.check(heads, weight, sound)
        sums = fields.reshape(-1)[: self.cohort.size] - count * self.quantizer.most
        scale = self.cohort.weight / weight
        mean = self.quantizer.decode(sums) * scale
        return Average(mean, weight, count, self.error(count, weight))

    def error(self, count: int, weight: int) -> float:
        """Return what bounds the error of the mean of so many updates of this weight together."""
        return count * self.cohort.weight / weight * self.quantizer.step / 2


def room_of(clients: int, coefficient_bits: tuple[int, ...]) -> int:
    """Return how many bits a slot may have.

    n errors of `NOISE` and n roundings of ½ must stay below q/2t; one bit is kept in reserve, and
    a little because primes are not powers of two.
    """
    noise = math.log2(clients * (2 * NOISE + 1) + 1) + 1
    return min(math.floor(sum(coefficient_bits[:-1]) - 0.02 - noise), _LARGEST)


def batching_prime(bits: int, degree: int) -> int:
    """Return the smallest prime above 2^bits that is 1 modulo 2 × degree, as slots require."""
    candidate = (1 << bits) + 1
    while not _is_prime(candidate):
        candidate += 2 * degree
    return candidate


def _is_prime(number: int) -> bool:
    """Decide by Miller-Rabin, for an odd number above 37 and below 2^64."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(pow(base, odd, number), twos, number) for base in _WITNESSES)


def _passes(power: int, twos: int, number: int) -> bool:
    if power == 1:
        return True
    for _ in range(twos):
        if power == number - 1:
            return True
        power = power * power % number
    return False
