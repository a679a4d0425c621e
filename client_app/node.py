"""A node: what one SuperNode, worker or simulated node knows while it serves its clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from torch import Tensor, nn

from client_app.guard import Guard
from client_app.public_counts import public_counts
from client_app.request import Request
from client_app.site import Site
from task.arrays import values_of
from task.attacks import attack_of, attackers_among
from task.base import ClientData, Examples
from task.clusters import apart
from task.device import CPU, device_of
from task.disclosure import is_protected
from task.flat import FlatModel, State, build_model
from task.memory import keep_freed
from task.objectives import Objective
from task.packing import Packing, packing_of
from task.personalization import layout_of, personalization_of
from task.personalization.layout import Layout
from task.personalization.models import Models
from task.privacy.evaluation import Evaluations
from task.privacy.row_counts import RowCounts
from task.refusals import Refusal, RefusalError
from task.seeding import derive
from task.source import DataSource
from task.store import ClientStore, Lineage
from task.witness import choose_network

RecordType = ArrayRecord | ConfigRecord | MetricRecord
CACHED_CLIENTS = 256
"""Clients whose tensors a process keeps; the others are made again when they are sampled."""


class Node:
    """Settings, data and one reused model of this process.

    Parameters
    ----------
    site : Site
        What is known of it before.

    Raises
    ------
    FedproofError
        If its data cannot be what the run wants.
    """

    def __init__(self, site: Site) -> None:
        keep_freed()
        self.site = site
        self.settings = site.settings
        self.source = DataSource(
            site.settings, site.data, site.name, *site.share,
            split_key=site.split_key, pin=site.pin_split, whole=site.policy.one_client,
            categories=site.policy.categories,
        )  # fmt: skip
        self.guard = Guard(site)
        self.personalization = personalization_of(site.settings)

    def store(self, lineage: Lineage, folder: str = "") -> ClientStore:
        """Return where clients keep what they keep from round to round."""
        return ClientStore(self.site.state / folder, lineage)

    def personal_store(self, lineage: Lineage) -> ClientStore | None:
        """Return where clients keep their personal models, if they keep any."""
        method = self.personalization
        return self.store(lineage) if method is not None and method.keeps else None

    def agreement(self, request: Request) -> dict[str, Any]:
        """Return what the clients agreed on, as `learner` takes it.

        Under privacy or secure sums it follows from the settings that this node accepted; else the
        server merged what clients told it, and is believed.
        """
        if is_protected(self.settings):
            return {"shared": self.source.task.derive_shared()}
        return {"shared": request.agreed}

    def public_size(self, client: str) -> RowCounts:
        """Return how many rows a client says that it has.

        The one place that tells; what it tells may be used without noise.

        Raises
        ------
        FedproofError
            If it may not tell, or the client is not here.
        """
        self.source.require_served(client)
        exact = RowCounts(*self.source.size(client))
        told = public_counts(self.site, self.guard.privacy, client, exact)
        return replace(told, test=exact.test) if self._evaluates_exactly else told

    @property
    def _evaluates_exactly(self) -> bool:
        """Whether held-out rows are unprotected: exact sums over them tell their number, too."""
        privacy, policy = self.guard.privacy, self.site.policy
        exact = privacy is None or privacy.evaluation is Evaluations.exact
        return exact and not policy.demands_privacy

    def learner(self, agreed: Mapping[str, Any]) -> Learner:
        """Return model and data for what the clients agreed on: `agreement`, or nothing."""
        return _learner(self, json.dumps(agreed.get("shared", {}), sort_keys=True))


class Learner:
    """One model, reused for every client of this process, and the clients' tensors."""

    def __init__(self, node: Node, shared: Mapping[str, Any]) -> None:
        self.settings = node.settings
        self._source = node.source
        self._shared = shared
        self.device = device_of(node.settings.train.device)
        self.objective: Objective = node.source.task.objective(shared)
        self._attack = attack_of(node.settings)
        self.data = lru_cache(maxsize=CACHED_CLIENTS)(self._data)
        self._told: tuple[ArrayRecord, dict[int, State]] | None = None
        self._method = node.personalization

    @cached_property
    def layout(self) -> Layout:
        """What of the model travels."""
        return layout_of(self.settings, self._source.task.spec(self._shared))

    @cached_property
    def model(self) -> FlatModel:
        """The model; its values are whatever was loaded last."""
        spec, train = self._source.task.spec(self._shared), self.settings.train
        network = choose_network(self._build, spec, self.objective, train, self.device)
        return FlatModel(network.module)

    @cached_property
    def private(self) -> FlatModel:
        """The same with its layers as they were built, for what looks at each example."""
        return FlatModel(self._build().to(self.device))

    @cached_property
    def plain(self) -> nn.Module:
        """The model's layers as they were built, without values of its own."""
        return self._build()

    @property
    def trainable(self) -> Tensor:
        """1 for each of the values that travel which is trained, and 0 for the others."""
        return self.layout.of(self.model.trainable)

    @cached_property
    def packing(self) -> Packing | None:
        """How updates and models are compressed, if they are."""
        return packing_of(self.settings, self._source.task.spec(self._shared))

    def models(self, arrays: RecordType, model: FlatModel | None = None) -> Models:
        """Return the models that the server sent, to be loaded into one."""
        return Models(self._method, self.objective, partial(self.load, arrays, model))

    def load(
        self,
        arrays: RecordType,
        model: FlatModel | None = None,
        kept: Mapping[str, Tensor] | None = None,
        number: int = 0,
    ) -> FlatModel:
        """Return a model with the values of `arrays`, which a cohort decodes once.

        What of it does not travel is what the client kept; of several models it is the one of
        this number.
        """
        model = model or self.model
        if self._told is None or self._told[0] is not arrays:
            if not isinstance(arrays, ArrayRecord):
                raise RefusalError(Refusal.model, "the server's message holds no model.")
            self._told = (arrays, apart(self._state(arrays)))
        try:
            model.load(self.layout.complete(self._told[1][number], kept or {}))
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise RefusalError(
                Refusal.model, f"the server's model does not fit this task: {reason}"
            ) from None
        return model

    def _state(self, arrays: ArrayRecord) -> State:
        if self.packing is not None:
            return self.packing.state_of(arrays)
        return {key: values_of(array) for key, array in arrays.items()}

    def _build(self) -> nn.Module:
        return build_model(self.settings, self._source.task.spec(self._shared))

    @cached_property
    def _attackers(self) -> frozenset[str]:
        assert self._attack is not None
        return attackers_among(self._source.parts, self._attack, self.settings.seed)

    def _poisoned(self, client: str, rows: Examples) -> Examples:
        assert self._attack is not None
        outputs = self._source.task.spec(self._shared).outputs
        generator = torch.Generator().manual_seed(derive(self.settings.seed, "poison", client))
        return self._attack.poison(rows, outputs, generator)

    def _data(self, client: str) -> ClientData:
        data = self._source.data(client, self._shared)
        if self._attack is not None and client in self._attackers:
            data = replace(data, train=self._poisoned(client, data.train))
        if self.device == CPU:
            return data
        return ClientData(data.train.to(self.device), data.test.to(self.device))


@lru_cache(maxsize=8)
def node_of(site: Site) -> Node:
    """Return the node at a site; processes keep it between messages."""
    return Node(site)


@lru_cache(maxsize=2)
def _learner(node: Node, shared: str) -> Learner:
    return Learner(node, json.loads(shared))
