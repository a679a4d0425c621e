"""What an attack may do: to its clients' rows, to what they send, to what they claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from conf.errors import FedproofError
from task.base import Examples
from task.options import real


class Attack:
    """The part of the attackers, who work together.

    Parameters
    ----------
    options : mapping
        With ``fraction``, the share of clients that attack.

    Attributes
    ----------
    crafts : bool
        Whether `craft` or `claim` changes anything: then the server's side of the simulation must
        see each answer of a round.

    Raises
    ------
    FedproofError
        If options are out of range.
    """

    crafts: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.fraction = real(options, "attack.fraction", below=1.0)

    def poison(self, rows: Examples, outputs: int, generator: torch.Generator) -> Examples:
        """Return what an attacker trains on, instead of its rows; `outputs` as in `ModelSpec`."""
        del outputs, generator
        return rows

    def trigger(self, rows: Examples, outputs: int) -> Examples | None:
        """Return rows as a backdoor wants them read, those that are so anyway left out."""
        del rows, outputs
        return None

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Return what the attackers send, shape (attackers, p).

        Parameters
        ----------
        own : Tensor, shape (attackers, p)
            What they trained.
        honest : Tensor, shape (others, p)
            What the others of this round will send, which the worst attackers know.
        generator : Generator
            Of this round.
        """
        del honest, generator
        return own

    def claim(self, rows: int, joined: int) -> int:
        """Return how many rows an attacker says it trained on, having joined with `joined`."""
        del joined
        return rows

    def joins_with(self, rows: int) -> int:
        """Return how many rows an attacker said it had when it joined."""
        return rows


class DataAttack(Attack):
    """An attack by data alone."""

    crafts = False


class Omniscient(Attack):
    """An attack that derives one vector from the honest updates, and has all attackers send it.

    Where nobody honest was drawn, the attackers' own updates take their place.
    """

    def forge(self, honest: Tensor, attackers: int) -> Tensor:
        """Return the vector, shape (p,), for that many attackers."""
        raise NotImplementedError

    @final
    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Send the forged vector."""
        del generator
        known = honest if len(honest) else own
        return self.forge(known, len(own)).expand_as(own)


def require_classes(rows: Examples, name: str) -> None:
    """Refuse rows whose targets are not classes, one per row.

    Raises
    ------
    FedproofError
        Then.
    """
    binary = rows.y.is_floating_point() and bool(((rows.y == 0) | (rows.y == 1)).all())
    if rows.y.dim() != 1 or (rows.y.is_floating_point() and not binary):
        raise FedproofError(f"attack={name} needs one class per row: choose another task.")


def scatter(honest: Tensor) -> Tensor:
    """Return each coordinate's standard deviation over clients; zero for a single one."""
    if len(honest) < 2:
        return torch.zeros_like(honest[0])
    return honest.std(dim=0)
