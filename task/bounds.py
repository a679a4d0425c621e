"""What an update may be where it is hidden in a sum, whatever hides it."""

from __future__ import annotations

from torch import Tensor

from conf.errors import FedproofError


def require_within(update: Tensor, weight: int, largest: float, heaviest: int) -> None:
    """Refuse an update that is beyond what was declared; what it is does not show.

    Parameters
    ----------
    update : Tensor of float, shape (size,)
        May be empty.
    weight : int
        That it counts with.
    largest : float
        ``aggregation.range``: its values lie within ±largest.
    heaviest : int
        ``aggregation.max_weight``.

    Raises
    ------
    FedproofError
        Then, or if it holds NaN.
    """
    if not 1 <= weight <= heaviest:
        raise FedproofError(
            f"its update's weight is not between 1 and aggregation.max_weight={heaviest}: raise "
            "that, or leave the client out."
        )
    # False for NaN.
    if len(update) and not float(update.abs().max()) <= largest:
        raise FedproofError(
            f"its update has values beyond aggregation.range={largest:g}: raise it, or "
            "lower train.lr."
        )
