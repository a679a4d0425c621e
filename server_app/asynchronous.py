"""Training without rounds that clients wait for: who is idle gets work, what comes is taken.

For ``strategy=fedbuff`` on nodes that answer on their own. Who answers first depends on machines
and networks, so that neither is a run the same twice nor its model.
"""

from __future__ import annotations

from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from server_app.federation.flow import Flow
from server_app.federation.grid import ClientGrid
from server_app.federation.validation import same_metrics, sift
from server_app.privacy.account import Account
from server_app.profile import EXCHANGE
from server_app.samplers._live import Live
from server_app.strategies.fedbuff import FedBuff
from server_app.training import Training


class AsyncTraining(Training):
    """One flush of the buffer: from the model before it to the answers that make the next.

    Parameters
    ----------
    flow : Flow
        Work on its way, from flush to flush.
    live : Live
        Who works on what.
    least : int
        Valid answers without which there is no flush; what came stays in the buffer.
    *told, **more
        As for `Training`.
    """

    def __init__(self, flow: Flow, live: Live, least: int, *told: Any, **more: Any) -> None:
        super().__init__(*told, **more)
        self._flow = flow
        self._live = live
        self._least = least
        self._staleness: dict[str, int] = {}

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> tuple[list[Message], list[str], dict[str, str]]:
        """Keep clients at work until the buffer is full, or nobody is left who could fill it."""
        assert isinstance(strategy, FedBuff)
        failed: dict[str, str] = {}
        fresh: list[Message] = []
        check = self._checker(strategy, number, arrays, updates=False)
        self._start(strategy, number, arrays, timeout, first=True)
        while not self._live.full and self._flow.waiting:
            with self._clock.stage(EXCHANGE):
                replies = self._flow.take()
            with self._clock.stage("validation"):
                for reply in replies:
                    valid, lost = sift([reply], self._grid.name, check)
                    self._live.finish(self._grid.name(reply), valid[0] if valid else None)
                    failed |= lost
                    fresh += valid
            self._start(strategy, number, arrays, timeout)
        told = [(self._grid.name(reply), reply.content) for reply in fresh]
        self.privacy = self._account.add(told)
        answered = self._flush(strategy, number)
        self._grid.cohort = sorted({*failed, *(self._grid.name(reply) for reply in answered)})
        return answered, [self._grid.name(reply) for reply in answered], failed

    def line(
        self, number: int, answered: list[str], failed: dict[str, str], attempts: int
    ) -> dict[str, Any]:
        """Return a line's part on who answered, on models how old, and who is at work still."""
        return {
            **super().line(number, answered, failed, attempts),
            "staleness": self._staleness,
            "at_work": sorted(self._live.working),
        }

    def _start(
        self,
        strategy: FedBuff,
        number: int,
        arrays: ArrayRecord,
        timeout: float,
        *,
        first: bool = False,
    ) -> None:
        """Give idle clients the present model; the first time the strategy learns it, too."""
        members = self._roster.members
        nodes = {client: members[client].node for client in self._roster.trainable}
        self._grid.cohort = self._live.start(nodes, number - 1)
        if not self._grid.cohort and not first:
            return
        config = ConfigRecord({"server-round": number, **self._account.told()})
        with self._clock.stage("configuration"):
            _, messages = self._configure(strategy, number, arrays, config)
            self._flow.give(messages, timeout)

    def _flush(self, strategy: FedBuff, number: int) -> list[Message]:
        """Empty the buffer, if there is enough in it."""
        if len(self._live.buffer) < self._least:
            return []
        flush, replies = self._live.flush()
        numbers = [reply.metadata.src_node_id for reply in replies]
        strategy.due(flush, dict(zip(numbers, flush.starts.values(), strict=True)))
        self._staleness = {c: number - 1 - version for c, version in flush.starts.items()}
        return same_metrics(replies)


def unused(flow: Flow, live: Live, grid: ClientGrid, account: Account) -> list[str]:
    """Return whose work a run ends without; what came of it is taken off the SuperLink.

    An answer that nobody will aggregate has left its client all the same: its privacy counts.
    """
    late, _ = sift(flow.take(wait=False), grid.name, lambda _, reply: account.check(reply.content))
    account.add([(grid.name(reply), reply.content) for reply in late])
    return sorted(live.working.keys() | live.buffer.keys())
