"""What is known of a run when it starts."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from conf.schema import Settings
from server_app.federation.roster import Roster
from task.attacks import attack_of, attackers_among
from task.secure import protection_of


def start_facts(settings: Settings, roster: Roster, arrays: ArrayRecord) -> dict[str, Any]:
    """Return the size of a run; how many rows there are is no fact where clients hide that."""
    members = roster.members.values()
    protection = protection_of(settings)
    hidden = protection is not None
    attack = attack_of(settings)
    return {
        "rounds": settings.rounds,
        "clients": len(members),
        "train_rows": None if hidden else sum(member.train for member in members),
        "test_rows": None if hidden else sum(member.test for member in members),
        "parameters": sum(int(np.prod(array.shape)) for array in arrays.values()),
        "attackers": []
        if attack is None
        else sorted(attackers_among(roster.members, attack, settings.seed)),
        "refused": sorted(set(roster.refused.values())),
        "aggregation": settings.aggregation.name,
        "promise": None if protection is None else protection.promise,
    }
