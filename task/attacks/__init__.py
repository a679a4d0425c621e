"""What simulated clients do to a federation: each ``attack=`` is a module of this package.

A module has ``build(options)``, which returns an `Attack`. Attacks are for simulations: a node of
a deployment refuses a run that has one (`client_app.site`).
"""

from __future__ import annotations

from collections.abc import Iterable

from conf.schema import Settings
from task.attacks.base import Attack
from task.registry import find
from task.seeding import derive


def attack_of(settings: Settings) -> Attack | None:
    """Return the attack that the settings name, or None if all clients are honest.

    Raises
    ------
    FedproofError
        If its settings are wrong.
    """
    built = find(__name__, settings.attack.name).build(settings.attack.options)
    assert built is None or isinstance(built, Attack)
    return built


def attackers_among(clients: Iterable[str], attack: Attack, seed: int) -> frozenset[str]:
    """Choose the attackers: as good as drawn at random, and the same wherever this is asked."""
    ranked = sorted(clients, key=lambda client: (derive(seed, "attacker", client), client))
    return frozenset(ranked[: round(attack.fraction * len(ranked))])
