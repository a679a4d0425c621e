"""Which Flower the few uses of its private parts were tested with."""

from __future__ import annotations

from importlib.metadata import version

from conf.errors import FedproofError

TESTED = "1.41."


def require_tested(what: str, otherwise: str) -> None:
    """Refuse another version of Flower than what uses its private parts was tested with.

    Parameters
    ----------
    what : str
        What uses them.
    otherwise : str
        What does not, and may be used in its place.

    Raises
    ------
    FedproofError
        Then.
    """
    installed = version("flwr")
    if not installed.startswith(TESTED):
        raise FedproofError(
            f"flwr {installed} is installed, but {what} was tested with {TESTED}x: "
            f"install flwr {TESTED}x or use {otherwise}."
        )
