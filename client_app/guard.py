"""What may leave a client: its policy, its mechanism, and its ledger decide together."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord

from conf.schema import Settings
from task.privacy.dpsgd import Mechanism
from task.privacy.ledger import Entry, Ledger
from task.privacy.policy import Policy, mechanism_of


class Guard:
    """The privacy of one node's clients in one run.

    Parameters
    ----------
    settings : Settings
        Of the run.
    policy : Policy
        Of the node's operator.
    ledgers : Path
        Folder with one ledger per client.

    Raises
    ------
    FedproofError
        If the policy does not allow the run.
    """

    def __init__(self, settings: Settings, policy: Policy, ledgers: Path) -> None:
        policy.require(settings)
        self._policy = policy
        self._ledgers = ledgers
        self.privacy = mechanism_of(settings)

    def mechanism(self, client: str, rows: int) -> Mechanism | None:
        """Return how a client must train; None if as it likes.

        Raises
        ------
        FedproofError
            If its budget does not allow another round, or its settings do not fit.
        """
        if self.privacy is None:
            return None
        mechanism = self.privacy.mechanism(client, rows)
        planned = Entry(self.privacy.unit, mechanism.spend, {})
        self._policy.check([*self._ledger(client).entries(), planned], self.privacy, client)
        return mechanism

    def release(self, client: str, mechanism: Mechanism, facts: dict[str, Any]) -> ConfigRecord:
        """Write down what is about to leave; return what the server is told of it.

        Raises
        ------
        FedproofError
            If it must not leave.
        """
        privacy = self.privacy
        assert privacy is not None
        spend = mechanism.spend
        cost = 0.0

        def allows(entries: Sequence[Entry]) -> None:
            nonlocal cost
            cost = self._policy.check(entries, privacy, client)

        facts = facts | {"clip": mechanism.clip, "time": round(time.time())}
        self._ledger(client).spend(Entry(privacy.unit, spend, facts), allows)
        return ConfigRecord(
            {
                "unit": privacy.unit,
                "sigma": spend.sigma,
                "rate": spend.rate,
                "steps": spend.steps,
                "delta": privacy.delta,
                "ledger-epsilon": cost,
                "ledger-delta": self._policy.delta or privacy.delta,
            }
        )

    def _ledger(self, client: str) -> Ledger:
        # Ids are any text; what of it a file name cannot hold is told apart by a digest.
        name = re.sub(r"[^0-9A-Za-z_-]", "_", client)[:40]
        digest = hashlib.sha256(client.encode()).hexdigest()[:12]
        return Ledger(self._ledgers / f"{name}-{digest}.jsonl")
