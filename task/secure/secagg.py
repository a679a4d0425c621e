"""Secure aggregation as ``aggregation=secagg`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from conf.errors import FedproofError
from conf.schema import Settings
from task.options import choice, real, whole
from task.secagg.masks import TYPES
from task.secagg.session import Terms

if TYPE_CHECKING:
    # They import torch, which takes longer than what many messages of a secure sum ask for.
    from task.privacy.distributed_dp import DistributedDP
    from task.secagg.encoding import Encoding
    from task.secagg.noisy import NoisyEncoding

    Codec = Encoding | NoisyEncoding


@dataclass(frozen=True)
class SecAgg:
    """Settings of secure aggregation.

    Attributes
    ----------
    terms : Terms
        Of every session.
    groups : int
        Sums of so many parts of a training cohort.
    noise : DistributedDP or None
        What adds noise to updates before they are masked.
    promise : str
        For people to read.
    """

    terms: Terms
    groups: int
    noise: DistributedDP | None = None
    promise: ClassVar[str] = "the server sees sums only"

    def codec(self, root: bytes, clients: int, size: int, figures: int) -> Codec:
        """Return how the vectors of a session are made.

        Parameters
        ----------
        root : bytes
            `Session.root`.
        clients : int
            In the session.
        size, figures : int
            Values of an update, if there is one, and figures besides.

        Raises
        ------
        FedproofError
            If sums of so many do not fit.
        """
        from task.secagg.encoding import Encoding
        from task.secagg.noisy import NoisyEncoding

        if self.noise is None or not size:
            return Encoding(self.terms, clients, size, figures)
        mechanism = self.noise.encoding(size, clients)
        return NoisyEncoding(self.terms, clients, figures, mechanism, root)


def build(settings: Settings) -> SecAgg:
    """Check the settings.

    Raises
    ------
    FedproofError
        If a value is out of range.
    """
    options: Mapping[str, Any] = settings.aggregation.options
    bits = whole(options, "aggregation.bits", 1)
    if bits not in TYPES:
        raise FedproofError(f"aggregation.bits must be 16 or 32, got {bits}.")
    threshold = real(options, "aggregation.threshold", positive=True, below=1.0)
    if threshold < 0.5:
        raise FedproofError(
            f"aggregation.threshold={threshold:g} lets fewer than half of a client's neighbours "
            "unmask it: choose at least 0.5."
        )
    terms = Terms(
        bits=bits,
        range=real(options, "aggregation.range", positive=True),
        max_weight=whole(options, "aggregation.max_weight", 1),
        threshold=threshold,
        min_cohort=whole(options, "aggregation.min_cohort", 2),
        corrupt=real(options, "aggregation.corrupt", below=0.5),
        dropout=real(options, "aggregation.dropout", below=0.5),
        stochastic=choice(options, "aggregation.rounding", ("nearest", "stochastic"))
        == "stochastic",
        active=choice(options, "aggregation.adversary", ("active", "semi_honest")) == "active",
    )
    if terms.active and 2 * threshold - 1 < terms.corrupt:
        raise FedproofError(
            f"aggregation.threshold={threshold:g} holds off no server that cheats with a share of "
            f"aggregation.corrupt={terms.corrupt:g} of the clients: raise it to 0.66, or choose "
            "aggregation.adversary=semi_honest."
        )
    groups = whole(options, "aggregation.groups", 1)
    noise = None
    if settings.privacy.name == "distributed_dp":
        from task.privacy.distributed_dp import DistributedDP

        noise = DistributedDP(settings)
    if noise is not None and groups > 1:
        raise FedproofError(
            "privacy=distributed_dp makes noise for the sum of all: leave aggregation.groups out."
        )
    if noise is not None:
        terms = replace(terms, colluders=max(terms.colluders, noise.colluders))
    return SecAgg(terms, groups, noise)
