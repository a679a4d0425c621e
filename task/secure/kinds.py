"""What a secure sum can be for: the kinds of messages whose answers are summed."""

from __future__ import annotations

from enum import StrEnum

from conf.errors import FedproofError


class Kind(StrEnum):
    """A kind of message that is answered with a hidden vector."""

    TRAIN = "train"
    EVALUATE = "evaluate"


def kind_of(purpose: str) -> Kind:
    """Return the kind of message that a purpose on the wire names.

    Raises
    ------
    FedproofError
        If it names none: a purpose of the server's own invention would be one more sum.
    """
    try:
        return Kind(purpose)
    except ValueError:
        raise FedproofError(
            "the server asks for a secure sum of something that is neither training nor "
            "evaluation: no client takes part."
        ) from None
