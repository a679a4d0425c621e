"""Secure aggregation as ``aggregation=secagg`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from conf.errors import FedproofError
from conf.schema import Settings
from task.options import choice, real, whole
from task.secagg.masks import TYPES
from task.secagg.session import Terms


@dataclass(frozen=True)
class SecAgg:
    """Settings of secure aggregation.

    Attributes
    ----------
    terms : Terms
        Of every session.
    groups : int
        Sums of so many parts of a training cohort.
    promise : str
        For people to read.
    """

    terms: Terms
    groups: int
    promise: ClassVar[str] = "the server sees sums only"


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
    return SecAgg(terms, whole(options, "aggregation.groups", 1))
