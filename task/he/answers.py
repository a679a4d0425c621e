"""A client's whole answer, an update and figures, under encryption; and sums of such answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from conf.errors import FedproofError
from task.bounds import require_within
from task.he.ciphertexts import Bytes, EncryptedSum, Packing, decrypt, encrypt
from task.he.figures import FigurePacking
from task.he.keyring import KeyRing
from task.he.quantize import Floats
from task.he.terms import Terms
from task.layouts import Layout

UPDATE, FIGURES = "update", "figures"
Parts = Mapping[str, Bytes]
"""Ciphertexts of the update, if there is one, and of the figures."""


@dataclass(frozen=True)
class Opened:
    """What a decrypted sum of answers holds.

    Attributes
    ----------
    count : int
        How many answers.
    weight : int
        Sum of the updates' weights; 0 where there are none.
    mean : float64 array, shape (size,)
        Weighted mean of the updates.
    figures : float64 array
        Sums of the figures, in the order of the layout.
    """

    count: int
    weight: int
    mean: Floats
    figures: Floats


def packings(layout: Layout, terms: Terms) -> dict[str, Packing]:
    """Return how each part of an answer is packed.

    Raises
    ------
    FedproofError
        If sums do not fit.
    """
    parts: dict[str, Packing] = {FIGURES: terms.figures(sum(layout.figures.values())).packing}
    return ({UPDATE: terms.updates(layout.size)} if layout.size else {}) | parts


def encrypted(
    terms: Terms, ring: KeyRing, update: Tensor, weight: int, figures: Mapping[str, Sequence[float]]
) -> tuple[Layout, dict[str, Bytes]]:
    """Return one client's answer: what of it is in clear, and the ciphertexts.

    Raises
    ------
    FedproofError
        If something is beyond what was declared.
    """
    require_within(update, weight, terms.range, terms.max_weight)
    layout = Layout(len(update), {name: len(values) for name, values in figures.items()})
    parts = {}
    numbers = [value for values in figures.values() for value in values]
    packed = terms.figures(len(numbers))
    packing = packed.packing
    if layout.size:
        updates = terms.updates(layout.size)
        key = ring.of(updates.parameters)
        parts[UPDATE] = encrypt(updates, key, update.detach().numpy(), weight)
    parts[FIGURES] = encrypt(packing, ring.of(packing.parameters), packed.slots(numbers), 1)
    return layout, parts


def opened(terms: Terms, ring: KeyRing, layout: Layout, sums: Parts) -> Opened:
    """Decrypt a sum of answers.

    Raises
    ------
    FedproofError
        If it is none, was made with another key, or holds too few answers.
    """
    packed = packings(layout, terms)
    if set(sums) != set(packed):
        raise FedproofError("the encrypted sum lacks a part, or has one too many: it is not shown.")
    means = {
        name: decrypt(packing, ring.of(packing.parameters), sums[name])
        for name, packing in packed.items()
    }
    found = means[FIGURES]
    figures = FigurePacking.sums(found)
    if not layout.size:
        return Opened(found.count, 0, np.zeros(0), figures)
    mean = means[UPDATE]
    if mean.count != found.count:
        raise FedproofError(
            f"the encrypted sum holds {mean.count} updates, but the figures of {found.count} "
            "clients: it is not shown."
        )
    return Opened(mean.count, mean.weight, mean.values, figures)


class AnswerSum:
    """What the server has: a sum of encrypted answers, and never more than one beside it.

    Parameters
    ----------
    terms : Terms
        Of the run.

    Attributes
    ----------
    clients : list of str
        Whose answers were added.
    layout : Layout or None
        Of all of them, once there is one.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._sums: dict[str, EncryptedSum] = {}
        self.clients: list[str] = []
        self.layout: Layout | None = None

    def add(self, client: str, layout: Layout, parts: Parts) -> None:
        """Add one client's answer, all of it or nothing.

        Raises
        ------
        FedproofError
            If it is not like the others.
        """
        if self.layout is None:
            self._sums = {
                name: EncryptedSum(packing.parameters, self._terms.max_clients)
                for name, packing in packings(layout, self._terms).items()
            }
        if (self.layout or layout) != layout or set(parts) != set(self._sums):
            raise FedproofError(
                f"the encrypted answer of '{client}' holds other figures than those of the others."
            )
        read = {name: total.read(parts[name], client) for name, total in self._sums.items()}
        for name, total in self._sums.items():
            total.take(read[name])
        self.layout = layout
        self.clients.append(client)

    def error(self, weight: int) -> float:
        """Return what bounds the error of the updates' mean, for their weight together."""
        assert self.layout is not None
        if not self.layout.size:
            return 0.0
        return self._terms.updates(self.layout.size).error(len(self.clients), weight)

    def totals(self) -> dict[str, Bytes]:
        """Return the sums, for the clients."""
        return {name: total.total() for name, total in self._sums.items()}
