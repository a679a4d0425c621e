"""What a node's clients do in sums that hide their answers, whatever hides them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from flwr.app import ConfigRecord, RecordDict

from client_app.secure.revealed import Question
from client_app.secure.trust import Trust
from conf.errors import FedproofError
from task.identity import Roster
from task.secagg.seat import Seat
from task.wire import WireError

if TYPE_CHECKING:
    from torch import Tensor

Request = Callable[[str, RecordDict], RecordDict]
"""From a client and what it is told to what it answers."""


class SecureClients(Protocol):
    """The clients of one node in one run whose server sees sums only."""

    def answer(self, client: str, told: RecordDict) -> RecordDict:
        """Answer what the server asks of a client besides training and evaluation."""

    def hidden(
        self,
        client: str,
        question: Question,
        update: Tensor,
        weight: int,
        figures: Mapping[str, Sequence[float]],
    ) -> tuple[RecordDict, Seat | None]:
        """Return a client's update and figures so that only sums of them can be seen.

        And in which session of secure aggregation that is, if it is one. `question` is the
        message that they answer.
        """


def answer_each(requests: Mapping[str, Request], client: str, told: RecordDict) -> RecordDict:
    """Answer what the server asks of a client, each request for itself."""
    answers = RecordDict()
    for name, request in requests.items():
        if name in told:
            try:
                answers.update(request(client, told))
            except FedproofError as error:
                answers[name] = ConfigRecord({"refused": str(error)})
            except (WireError, KeyError, ValueError, TypeError):
                answers[name] = ConfigRecord({"refused": f"cannot read the '{name}' request."})
    return answers


def known_clients(trust: Trust, needed: bool, setting: str, otherwise: str) -> Roster | None:
    """Return whom clients deal with: nobody but those in the roster, if the node was given one.

    Parameters
    ----------
    trust : Trust
        What the node knows.
    needed : bool
        Whether the run demands that clients know whom they deal with.
    setting, otherwise : str
        What demands it, and the value that does not.

    Returns
    -------
    Roster or None
        None where clients take the server's word.

    Raises
    ------
    FedproofError
        If there must be a roster, and is none.
    """
    if not needed and not trust.given:
        return None
    if trust.roster is None:
        raise FedproofError(
            f"{setting} needs a roster of the clients' identity keys: give this node one "
            f"(--node-config 'roster=\"FILE\"'), or choose {otherwise}."
        )
    return trust.roster
