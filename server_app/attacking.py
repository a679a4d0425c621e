"""The attackers' side of a simulation: they see what the others of a round send, and answer last.

What attackers do to their own rows happens where they train (`client_app.node`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.federation.grid import ClientGrid
from server_app.federation.layout import ARRAYS, Layout
from server_app.federation.reduction import WEIGHT
from server_app.federation.roster import Roster
from task.arrays import values_of
from task.attacks import attack_of, attackers_among
from task.attacks.base import Attack
from task.base import Examples, Task
from task.flat import FlatModel, build_model
from task.packing import Packing
from task.privacy.client_dp import ClientDP
from task.privacy.policy import mechanism_of
from task.seeding import derive
from task.source import DataSource
from task.wire import config, records

MOST_TRIGGERED = 2000
"""Held-out rows that a backdoor is tried on."""


def require_attackable(settings: Settings) -> None:
    """Refuse an attack that rewrites answers which nobody sees one by one.

    Raises
    ------
    FedproofError
        Then, or if its settings are wrong.
    """
    attack = attack_of(settings)
    if attack is not None and settings.personalization.name != "none":
        raise FedproofError(
            f"attack={settings.attack.name} is measured on the one model of all clients: leave "
            f"personalization={settings.personalization.name} out."
        )
    if attack is None or not attack.crafts:
        return
    if settings.compression.name != "none":
        raise FedproofError(
            f"attack={settings.attack.name} is made of whole updates, and "
            f"compression={settings.compression.name} sends others: leave it out, or choose "
            "attack=label_flip, which needs the attackers' rows only."
        )
    mechanism = mechanism_of(settings)
    hides = f"aggregation={settings.aggregation.name}"
    if settings.aggregation.name == "none":
        if not isinstance(mechanism, ClientDP) or not mechanism.central:
            return
        hides = f"privacy={settings.privacy.name} with its noise on the sum"
    raise FedproofError(
        f"attack={settings.attack.name} is played where single answers are seen, which {hides} "
        "does not show: choose attack=label_flip, which needs the attackers' rows only."
    )


class AttackedGrid(ClientGrid):
    """To the clients, some of whom attack.

    Parameters
    ----------
    attack : Attack
        What they do.
    settings : Settings
        Of the run.
    grid, roster, header, packing
        As for `ClientGrid`.
    """

    def __init__(self, attack: Attack, settings: Settings, *told: Any) -> None:
        super().__init__(*told)
        self._attack = attack
        self._seed = settings.seed
        members = told[1].members
        self.attackers = attackers_among(members, attack, settings.seed)
        for client in self.attackers:
            claimed = attack.joins_with(members[client].train)
            most = settings.federation.max_examples
            members[client] = members[client]._replace(train=min(claimed, most))

    def exchange(
        self, messages: Iterable[Message], *, timeout: float | None, sum_unit: float | None
    ) -> list[Message]:
        """Ask the clients; what attackers trained is replaced by what they make of it."""
        asked = list(messages)
        replies = super().exchange(asked, timeout=timeout, sum_unit=sum_unit)
        if self._attack.crafts and asked and _trains(asked[0]):
            model = asked[0].content[ARRAYS]
            assert isinstance(model, ArrayRecord)
            number = int(str(config(asked[0].content, "config")["server-round"]))
            self._rewrite(Layout(model), number, replies)
        return replies

    def _rewrite(self, layout: Layout, number: int, replies: list[Message]) -> None:
        whole = [r for r in replies if r.has_content() and ARRAYS in r.content]
        liars = [r for r in whole if self.name(r) in self.attackers]
        others = [r for r in whole if self.name(r) not in self.attackers]
        if not liars:
            return
        start = layout.vector()
        own, honest = layout.updates(liars), layout.updates(others)
        generator = torch.Generator().manual_seed(derive(self._seed, "attack", number))
        for reply, update in zip(liars, self._attack.craft(own, honest, generator), strict=True):
            reply.content[ARRAYS] = layout.arrays_of(start + update)
            (metrics,) = records(reply.content, MetricRecord)
            joined = self._roster.members[self.name(reply)].train
            metrics[WEIGHT] = self._attack.claim(int(str(metrics[WEIGHT])), joined)


def _trains(message: Message) -> bool:
    return message.metadata.message_type.partition(".")[0] == MessageType.TRAIN


def client_grid(
    settings: Settings,
    grid: Grid,
    roster: Roster,
    header: Mapping[str, Any],
    packing: Packing | None,
) -> ClientGrid:
    """Return the grid to the clients, honest or not."""
    attack = attack_of(settings)
    if attack is None:
        return ClientGrid(grid, roster, header, packing)
    return AttackedGrid(attack, settings, grid, roster, header, packing)


class BackdoorProbe:
    """How often a model reads held-out rows with the trigger as the attackers want.

    Parameters
    ----------
    settings : Settings
        Of the run.
    task : Task
        What is learned.
    shared : mapping
        What the clients agreed on.
    """

    def __init__(self, settings: Settings, task: Task[Any], shared: Mapping[str, Any]) -> None:
        attack = attack_of(settings)
        spec = task.spec(shared)
        self._rows: Examples | None = None
        if attack is None or type(attack).trigger is Attack.trigger:
            return
        self._rows = attack.trigger(held_out(settings, shared), spec.outputs)
        self._model = FlatModel(build_model(settings, spec))

    @torch.inference_mode()
    def success(self, arrays: ArrayRecord) -> dict[str, float]:
        """Return an evaluation's part on the backdoor, empty without any."""
        if self._rows is None or not len(self._rows):
            return {}
        self._model.load({key: values_of(array) for key, array in arrays.items()})
        self._model.module.eval()
        output = self._model.module(self._rows.x)
        wide = output.dim() > 1 and output.shape[1] > 1
        read = output.argmax(1) if wide else (output.reshape(-1) > 0).long()
        return {"backdoor_success": float((read == self._rows.y).double().mean())}


def held_out(settings: Settings, shared: Mapping[str, Any]) -> Examples:
    """Return held-out rows of all clients, as the clients' models see them."""
    source = DataSource(settings)
    parts = [source.data(client, shared).test for client in source.clients]
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    drawn = np.random.default_rng(derive(settings.seed, "triggered")).permutation(len(y))
    return Examples(x, y).take(drawn[:MOST_TRIGGERED])
