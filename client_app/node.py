"""A node: what one SuperNode, worker or simulated node knows while it serves its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.supercore.utils import get_flwr_home
from torch import nn

from client_app.guard import Guard
from client_app.secure.he import HEClients
from client_app.secure.requests import SecureClients
from client_app.secure.secagg import SecAggClients
from client_app.secure.trust import Trust
from client_app.state import ClientStore
from conf.compose import compose, split_overrides
from conf.digest import code_digest, config_digest
from conf.errors import FedproofError
from conf.schema import Settings
from task.arrays import values_of
from task.base import ClientData
from task.device import CPU, device_of
from task.flat import FlatModel, State, build_model
from task.kernels import accelerate
from task.objectives import Objective
from task.privacy.policy import Policy
from task.secure import protection_of
from task.secure.he import HE
from task.source import DataSource

RecordType = ArrayRecord | ConfigRecord | MetricRecord
CACHED_CLIENTS = 256
"""Clients whose tensors a process keeps; the others are made again when they are sampled."""


class Node:
    """Settings, data and one reused model of this process."""

    def __init__(
        self, settings: Settings, source: DataSource, state: Path, guard: Guard, trust: Trust
    ) -> None:
        self.settings = settings
        self.source = source
        self.guard = guard
        self.protection = protection_of(settings)
        self._state = state
        self._trust = trust
        self.digests = {"config": config_digest(settings), "code": code_digest()}

    def check(self, header: Mapping[str, Any]) -> None:
        """Refuse a server that runs other code or other settings."""
        for kind, mine in self.digests.items():
            if header.get(kind) != mine:
                raise FedproofError(
                    f"this node runs other {kind} than the server ({kind} digest {mine[:12]}, "
                    f"the server's {str(header.get(kind))[:12]}): bring both to the same version."
                )

    def store(self, header: Mapping[str, Any]) -> ClientStore:
        """Return where clients keep what they keep from round to round."""
        lineage = [(str(name), int(start)) for name, start in header.get("lineage", [])]
        return ClientStore(self._state, lineage)

    def secure(self, header: Mapping[str, Any]) -> SecureClients | None:
        """Return what hides the clients' answers from the server, if the run has that.

        Raises
        ------
        FedproofError
            If the node cannot take part in it.
        """
        if self.protection is None:
            return None
        run = str(header["lineage"][0][0])
        folder = self._state / "secrets"
        if isinstance(self.protection, HE):
            return HEClients(self.protection, self._trust, folder, run)
        return SecAggClients(self.protection, self._trust, folder, run)

    def learner(self, header: Mapping[str, Any]) -> Learner:
        """Return model and data for what the clients agreed on."""
        return _learner(self, json.dumps(header.get("shared", {}), sort_keys=True))


class Learner:
    """One model, reused for every client of this process, and the clients' tensors."""

    def __init__(self, node: Node, shared: Mapping[str, Any]) -> None:
        self.settings = node.settings
        self._source = node.source
        self._shared = shared
        self.device = device_of(node.settings.train.device)
        self.objective: Objective = node.source.task.objective(shared)
        self.data = lru_cache(maxsize=CACHED_CLIENTS)(self._data)
        self._told: tuple[ArrayRecord, State] | None = None

    @cached_property
    def model(self) -> FlatModel:
        """The model; its values are whatever was loaded last."""
        module = self._build().to(self.device)
        return FlatModel(accelerate(module) if self.device == CPU else module)

    @cached_property
    def private(self) -> FlatModel:
        """The same with its layers as they were built, for what looks at each example."""
        return FlatModel(self._build().to(self.device))

    @cached_property
    def plain(self) -> nn.Module:
        """The model's layers as they were built, without values of its own."""
        return self._build()

    def load(self, arrays: RecordType, model: FlatModel | None = None) -> FlatModel:
        """Return a model with the values of `arrays`, which a cohort decodes once."""
        model = model or self.model
        if self._told is None or self._told[0] is not arrays:
            if not isinstance(arrays, ArrayRecord):
                raise FedproofError("the server's message holds no model.")
            self._told = (arrays, {key: values_of(array) for key, array in arrays.items()})
        try:
            model.load(self._told[1])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise FedproofError(f"the server's model does not fit this task: {reason}") from None
        return model

    def _build(self) -> nn.Module:
        return build_model(self.settings, self._source.task.spec(self._shared))

    def _data(self, client: str) -> ClientData:
        data = self._source.data(client, self._shared)
        if self.device == CPU:
            return data
        return ClientData(data.train.to(self.device), data.test.to(self.device))


def node_of(context: Context) -> Node:
    """Return the node for a Flower context; processes keep it between messages.

    Reads from the run config ``overrides``; from the node config ``data`` and ``client`` (the
    silo's own data and name) or ``partition-id`` and ``num-partitions`` (a simulated node);
    ``state`` and ``ledger`` (where its clients keep what they keep, and their privacy ledgers);
    ``identity`` and ``roster`` (the clients' signing key, and those of all clients that they know);
    ``privacy``, ``placement``, ``max-epsilon``, ``delta``, ``aggregation``, ``min-cohort`` and
    ``threshold`` (`Policy`).
    """
    config = context.node_config
    places = tuple(
        None if key not in config else Path(str(config[key])).expanduser()
        for key in ("data", "state", "ledger", "identity", "roster")
    )
    return _node(
        split_overrides(str(context.run_config.get("overrides", ""))),
        places,
        Policy.of(config),
        None if "client" not in config else str(config["client"]),
        (int(config.get("partition-id", 0)), int(config.get("num-partitions", 1))),
    )


@lru_cache(maxsize=8)
def _node(
    overrides: tuple[str, ...],
    places: tuple[Path | None, ...],
    policy: Policy,
    name: str | None,
    share: tuple[int, int],
) -> Node:
    settings = compose(overrides)
    own, *kept, identity, roster = places
    # A silo's disk is not the server's to choose a place on.
    told = settings.run_dir if own is None else None
    state, ledger = (
        place or (Path(told) / folder if told else get_flwr_home() / f"fedproof-{folder}")
        for place, folder in zip(kept, ("clients", "ledgers"), strict=True)
    )
    guard = Guard(settings, policy, ledger)
    trust = Trust(state / "identities", identity, roster, simulated=own is None)
    return Node(settings, DataSource(settings, own, name, *share), state, guard, trust)


@lru_cache(maxsize=2)
def _learner(node: Node, shared: str) -> Learner:
    return Learner(node, json.loads(shared))
