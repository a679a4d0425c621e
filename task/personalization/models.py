"""The models of a moment as clients see them: those that travel, and what each makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Settings
from task.base import ClientData, Examples
from task.client_update.base import Work
from task.evaluation import Evaluated, beside, evaluate
from task.flat import FlatModel
from task.metric_names import CLUSTER
from task.objectives import Objective
from task.personalization.base import Personalization
from task.seeding import derive

Load = Callable[[Mapping[str, Tensor], int], FlatModel]
"""Returns a model from what a client kept, and the number of the one that travelled."""


@dataclass(frozen=True)
class Models:
    """The models that the server sent, or that a run left behind.

    Attributes
    ----------
    method : Personalization or None
        What clients make of them.
    objective : Objective
        What is learned.
    load : callable
        Fills a model.
    """

    method: Personalization | None
    objective: Objective
    load: Load

    def choose(self, rows: Examples) -> int:
        """Return the number of the model with the lowest loss on these rows; 0 without rows."""
        if self.method is None or self.method.clusters <= 1 or not len(rows):
            return 0
        losses = []
        for number in range(self.method.clusters):
            module = self.load({}, number).module
            loss = evaluate(module, rows, self.objective).metrics["loss"]
            losses.append(math.inf if math.isnan(loss) else loss)
        return losses.index(min(losses))

    def own(self, kept: Mapping[str, Tensor]) -> FlatModel:
        """Return the model that a client uses, where no row of its own decides which.

        That is so under record-level privacy, where what a client keeps was trained with noise.
        """
        return self.load(kept, 0)

    def evaluate(
        self,
        client: str,
        data: ClientData,
        kept: Mapping[str, Tensor],
        settings: Settings,
        number: int,
    ) -> Evaluated:
        """Evaluate what a client uses after a round; beside it the global model, if there is one.

        Parameters
        ----------
        client : str
            Whose it is.
        data : ClientData
            Its rows.
        kept : mapping of str to Tensor
            What it kept.
        settings : Settings
            Of the run.
        number : int
            The round.

        Raises
        ------
        FedproofError
            If it has no held-out rows.
        """
        if not len(data.test):
            raise FedproofError(f"client '{client}' has no held-out rows.")
        if self.method is None:
            return evaluate(self.load({}, 0).module, data.test, self.objective)
        chosen = self.choose(data.train)
        model = self.load(kept, chosen)
        seed = derive(settings.seed, "personal", number, client)
        self.method.personalize(
            Work(model, data.train, self.objective, settings.train, seed, kept=dict(kept))
        )
        own = evaluate(model.module, data.test, self.objective)
        if self.method.compares:
            return beside(own, evaluate(self.load({}, 0).module, data.test, self.objective))
        if self.method.clusters:
            return replace(own, metrics={**own.metrics, CLUSTER: chosen})
        return own
