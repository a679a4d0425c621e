"""Clients whose losses are quadratics, so that every update has a closed form."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from conf.compose import compose
from server_app.compat import adopt_identity
from server_app.samplers import sampler_of
from server_app.strategies._moving import acquaint
from task.arrays import values_of
from task.base import Examples
from task.client_update import update_of
from task.client_update.base import Work
from task.compression import compressors_of
from task.flat import FlatModel
from task.objectives import Regression
from task.packing import Packing
from task.registry import find
from task.wire import VECTORS

NAMES = ("ann", "bob", "cy")
ROWS = (6, 9, 3)
START = np.array([0.5, -1.0, 2.0])


class Quadratics:
    """A federation of three least-squares problems: batches hold all rows of a client.

    The gradient of client k at w is ``A[k] @ w - b[k]``.
    """

    def __init__(self, *overrides, steps=(4, 4, 4)):
        adopt_identity(1)
        self.settings = compose(("train.batch_size=64", "train.lr=0.05", *overrides))
        self.steps = steps
        random = np.random.default_rng(3)
        self.x = [random.normal(size=(n, 3)) for n in ROWS]
        self.y = [x @ random.normal(size=3) for x in self.x]
        self.A = [2 * x.T @ x / len(x) for x in self.x]
        self.b = [2 * x.T @ y / len(x) for x, y in zip(self.x, self.y, strict=True)]
        self.objective = Regression()
        self.module = torch.nn.Linear(3, 1, bias=False)
        members = {c: SimpleNamespace(train=n) for c, n in zip(NAMES, ROWS, strict=True)}
        roster = SimpleNamespace(trainable=list(NAMES), members=members)
        name = self.settings.strategy.name
        self.strategy = find("server_app.strategies", name).build(self.settings.strategy.options)
        self.update = update_of(self.settings)
        acquaint(self.strategy, self.settings, self.module, roster, sampler_of(self.settings))
        self.kept = {client: {} for client in NAMES}
        compressors = compressors_of(self.settings)
        self.packing = compressors and Packing(*compressors, 1, self.module)
        self.waiting = {client: {} for client in NAMES}
        self.arrays = ArrayRecord({"weight": Array(START[None].astype(np.float32))})
        self.metrics = {}

    def run(self, *cohorts):
        """Train a round with each cohort; return the models after them."""
        return [self._round(i + 1, cohort) for i, cohort in enumerate(cohorts)]

    def _round(self, number, cohort):
        grid = SimpleNamespace(get_node_ids=lambda: [NAMES.index(c) + 1 for c in cohort])
        messages = self.strategy.configure_train(
            number, self.arrays, ConfigRecord({"server-round": number}), grid
        )
        messages = sorted(messages, key=lambda m: m.metadata.dst_node_id)
        replies = [self._answer(message) for message in messages]
        self.arrays, self.metrics = self.strategy.aggregate_train(number, replies)
        return values_of(self.arrays["weight"]).reshape(-1).astype(np.float64)

    def _answer(self, message):
        k = message.metadata.dst_node_id - 1
        model = FlatModel(torch.nn.Linear(3, 1, bias=False))
        model.load({"weight": values_of(message.content["arrays"]["weight"])})
        told = message.content.get(VECTORS, {})
        data = Examples(torch.tensor(self.x[k]).float(), torch.tensor(self.y[k]).float())
        config = replace(self.settings.train, steps=self.steps[k])
        mu = float(message.content["config"].get("proximal-mu", 0.0))
        work = Work(
            model, data, self.objective, config, seed=k, proximal_mu=mu,
            told={key: torch.from_numpy(values_of(a).copy()) for key, a in told.items()},
            kept=self.kept[NAMES[k]],
        )  # fmt: skip
        update = self.update.run(work)
        if self.update.keeps:
            self.kept[NAMES[k]] = update.trained.memory
        values = update.values
        if self.packing:
            # As a client sends it, and the server reads it.
            start = torch.from_numpy(
                values_of(message.content["arrays"]["weight"]).copy().reshape(-1)
            )
            number = int(message.content["config"]["server-round"])
            _, read, self.waiting[NAMES[k]] = self.packing.pack(
                values - start, self.waiting[NAMES[k]], (number, NAMES[k]), None
            )
            values = start + read
        metrics = {"num-examples": ROWS[k], "steps": update.trained.steps, "loss": 1.0}
        answer = RecordDict(
            {
                "arrays": ArrayRecord({"weight": Array(values.numpy().reshape(1, 3))}),
                "metrics": MetricRecord(metrics),
            }
        )
        if update.sent:
            answer[VECTORS] = ArrayRecord({k: Array(v.numpy()) for k, v in update.sent.items()})
        return Message(answer, reply_to=message)
