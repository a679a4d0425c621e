"""The server's account of distributed privacy: by the noise of those who did contribute."""

from __future__ import annotations

from typing import Any

from flwr.app import RecordDict
from torch import Tensor

from conf.schema import Settings
from server_app.federation.roster import Roster
from server_app.privacy.account import Account
from server_app.secure.collected import HiddenSum
from task.privacy.base import below_share
from task.privacy.distributed_dp import DistributedDP


class DistributedAccount(Account):
    """Counts what secure sums cost the clients whose updates they hold.

    Parameters
    ----------
    settings : Settings
        Of the run.
    privacy : DistributedDP
        Its mechanism.
    """

    def __init__(self, settings: Settings, privacy: DistributedDP) -> None:
        super().__init__(settings)
        self._distributed = privacy

    def begin(self, run: str, roster: Roster) -> None:
        """Check δ against the number of clients."""
        below_share(self._distributed.delta, len(roster.trainable), "clients")

    def mean(self, total: HiddenSum) -> Tensor:
        """Return the mean of a sum, after counting what it told."""
        contributors = len(total.clients)
        spend = self._distributed.spend(len(total.update), total.asked, contributors)
        for client in total.clients:
            self._spends.setdefault(client, []).append(spend)
        return super().mean(total)

    def _count(self, client: str, content: RecordDict) -> None:
        """Leave the answers' own figures out: they were made before anybody had dropped out."""

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"sigma": self._distributed.sigma}

    def _assumptions(self) -> str:
        return (
            "the server sees sums only, and each holds the noise of all whose updates it holds; "
            f"the noise of {self._distributed.colluders} of them may be known; that a client took "
            "part is no secret"
        )
