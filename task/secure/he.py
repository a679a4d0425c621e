"""Homomorphic encryption as ``aggregation=he`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from conf.errors import FedproofError
from conf.schema import Settings
from task.he.contexts import Scheme, library
from task.he.terms import PRIMES, Terms
from task.options import choice, real, whole


@dataclass(frozen=True)
class HE:
    """Settings of homomorphic encryption.

    Attributes
    ----------
    terms : Terms
        Of every sum.
    groups : int
        Sums of so many parts of a training cohort: of the whole one.
    promise : str
        For people to read.
    """

    terms: Terms
    groups: ClassVar[int] = 1
    promise: ClassVar[str] = "the server sees sums only, unless a client gives it the key"


def build(settings: Settings) -> HE:
    """Check the settings.

    Raises
    ------
    FedproofError
        If a value is out of range, sums do not fit, or TenSEAL is not installed.
    """
    options: Mapping[str, Any] = settings.aggregation.options
    library()
    degree = whole(options, "aggregation.degree", 1)
    if degree not in PRIMES:
        allowed = ", ".join(map(str, PRIMES))
        raise FedproofError(f"aggregation.degree must be one of {allowed}, got {degree}.")
    terms = Terms(
        scheme=Scheme(choice(options, "aggregation.scheme", tuple(Scheme))),
        bits=whole(options, "aggregation.bits", 2),
        per_slot=whole(options, "aggregation.per_slot", 1),
        range=real(options, "aggregation.range", positive=True),
        max_weight=whole(options, "aggregation.max_weight", 1),
        min_cohort=whole(options, "aggregation.min_cohort", 2),
        max_clients=whole(options, "aggregation.max_clients", 2),
        degree=degree,
        pinned=choice(options, "aggregation.identities", ("pinned", "unverified")) == "pinned",
    )
    # Whether sums fit does not depend on the model: it shows now, not in the first round.
    terms.updates(1)
    terms.figures(1)
    return HE(terms)
