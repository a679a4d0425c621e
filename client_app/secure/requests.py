"""What a node's clients do in sums that hide their answers, whatever hides them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flwr.app import ConfigRecord, RecordDict

from client_app.secure.box import Place
from client_app.secure.revealed import Question
from client_app.secure.trust import Trust
from conf.errors import FedproofError
from task.identity import Roster
from task.refusals import Failure, Refusal, RefusalError
from task.secagg.seat import Seat
from task.wire import WireError

if TYPE_CHECKING:
    from torch import Tensor

    from task.privacy.distributed_dp import DistributedDP

log = logging.getLogger(__name__)
Secrets = dict[str, Any]
Request = Callable[[str, Secrets, RecordDict], RecordDict]
"""From a client, its secrets and what it is told to what it answers."""


class SecureClients(Protocol):
    """The clients of one node in one run whose server sees sums only.

    Attributes
    ----------
    name : str
        As ``aggregation=`` names it.
    """

    name: str

    @property
    def noise(self) -> DistributedDP | None:
        """What adds noise to updates before they are hidden."""

    def seat(self, client: str, told: ConfigRecord) -> Seat | None:
        """Return which session of secure aggregation a client is told of, if it is one.

        Raises
        ------
        FedproofError
            If the client takes part in no such session.
        """

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


def answer_each(
    requests: Mapping[str, Request],
    place: Place,
    asked: tuple[str, RecordDict],
    *,
    simulated: bool,
) -> RecordDict:
    """Answer what the server asks of a client, each request for itself.

    Its secrets are read and written once, and are on the disk before an answer can leave.

    Parameters
    ----------
    requests : mapping of str to callable
        What may be asked, and who answers.
    place : Place
        Where the client keeps its secrets.
    asked : (str, RecordDict)
        The client, and what it is asked.
    simulated : bool
        Whether why something was refused may be told in full.
    """
    client, told = asked
    answers = RecordDict()
    known = [name for name in requests if name in told]

    def refused(error: Exception, name: str) -> ConfigRecord:
        return ConfigRecord({"refused": told_of(error, client, name, simulated=simulated)})

    try:
        with place.opened(client) as secrets:
            for name in known:
                try:
                    answers.update(requests[name](client, secrets, told))
                except (FedproofError, WireError, KeyError, ValueError, TypeError) as error:
                    answers[name] = refused(error, name)
    except FedproofError as error:
        return RecordDict({name: refused(error, name) for name in known})
    return answers


def told_of(error: Exception, client: str, name: str, *, simulated: bool) -> str:
    """Return what a server is told of a failure; a silo's log has the whole of it.

    Parameters
    ----------
    error : Exception
        What was raised.
    client, name : str
        Who was asked, and for what.
    simulated : bool
        Whether the server may know all.
    """
    if not isinstance(error, FedproofError):
        error = WireError(f"cannot read the '{name}' request.")
    failure = Failure.of(error, Refusal.secure)
    if not simulated:
        log.warning("client %s, %s: %s", client, name, failure.sentence)
    return failure.told(simulated=simulated)


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
        raise RefusalError(
            Refusal.roster,
            f"{setting} needs a roster of the clients' identity keys: give this node one "
            f"(--node-config 'roster=\"FILE\"'), or choose {otherwise}.",
        )
    return trust.roster
