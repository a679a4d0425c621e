"""Which round a client is asked for, and what follows from those it took part in before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from client_app.request import Request
from task.privacy.base import Privacy
from task.privacy.ledger import Entry
from task.refusals import Refusal, RefusalError

EVALUATION = "evaluation"
"""Of a ledger's line: what was released is sums over held-out rows."""


@dataclass(frozen=True)
class Moment:
    """Which round a client is asked for.

    Attributes
    ----------
    run : str
        Flower's id of the run; a run that is resumed has another.
    start : int
        Rounds that were done before that.
    number : int
        Of the round.
    """

    run: str
    start: int
    number: int

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read a request.

        What a run had done when it was resumed, only a simulation is believed: a silo that was
        told of more would account for less.
        """
        resumed = request.lineage if request.simulated else ()
        return cls(request.run, resumed[-1][1] if resumed else 0, request.number)


def rounds_due(privacy: Privacy, entries: Sequence[Entry], moment: Moment) -> int:
    """Return the rounds that a client has to account for when it takes part.

    Where cohorts are secret, a client shares the cost of every round, also of those in which it
    was not drawn: what it did not write down yet falls due.
    """
    if not privacy.sampled:
        return 1
    trained = (entry.facts for entry in entries if entry.facts.get("kind") != EVALUATION)
    written = (facts["round"] for facts in trained if facts.get("run") == moment.run)
    return max(1, moment.number - max(written, default=moment.start))


def require_separation(
    privacy: Privacy, entries: Sequence[Entry], moment: Moment, client: str
) -> None:
    """Refuse a round that comes too soon after another one of a client.

    Raises
    ------
    RefusalError
        Then.
    """
    for entry in entries:
        if entry.facts.get("kind") == EVALUATION:
            continue
        same = entry.facts.get("run") == moment.run and privacy.separation > 1
        if same and abs(moment.number - int(entry.facts["round"])) < privacy.separation:
            raise RefusalError(
                Refusal.separation,
                f"client '{client}' took part in round {entry.facts['round']}, less than "
                f"privacy.separation={privacy.separation} rounds from this one.",
            )
