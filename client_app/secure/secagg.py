"""Secure aggregation on a node: clients answer the server's requests, and mask their vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flwr.app import ConfigRecord, RecordDict

from client_app.secure.box import Place, first_time, is_ahead
from client_app.secure.requests import Request, Secrets, answer_each, known_clients
from client_app.secure.revealed import Question
from client_app.secure.trust import Trust
from conf.errors import FedproofError
from task.arrays import array_of, record_of
from task.layouts import Layout
from task.secagg.client import Member
from task.secagg.seat import Seat
from task.secagg.session import Advert, FreshKeys, Session, cohort_of, members_of
from task.secure.kinds import kind_of
from task.secure.secagg import SecAgg
from task.wire import blob, config, listed, numbered

if TYPE_CHECKING:
    from torch import Tensor

    from task.privacy.distributed_dp import DistributedDP

_SPARE = 4
"""Keys that were advertised and not used yet; of more, the oldest are thrown away."""
Settle = Callable[[str, Seat, int], None]


class SecAggClients:
    """The clients of one node in one run.

    Parameters
    ----------
    protection : SecAgg
        By the node's own settings.
    trust : Trust
        The clients' identity keys, and those that they know.
    place : Place
        Where they keep their secrets.
    settle : callable
        Told how many vectors a sum will hold before a client signs that.

    Raises
    ------
    FedproofError
        If they are to know whom they deal with, and have no roster.
    """

    def __init__(self, protection: SecAgg, trust: Trust, place: Place, settle: Settle) -> None:
        self._settle = settle
        self._protection = protection
        self._terms = protection.terms
        self._trust = trust
        self._place = place
        self._roster = known_clients(
            trust, self._terms.active, "aggregation.adversary=active", "semi_honest"
        )

    name = "secagg"

    @property
    def noise(self) -> DistributedDP | None:
        """What adds noise to updates before they are masked."""
        return self._protection.noise

    def seat(self, client: str, told: ConfigRecord) -> Seat:
        """Return the client's seat in the session that it is told of.

        Raises
        ------
        FedproofError
            If it has none.
        """
        with self._place.opened(client) as secrets:
            return _member(secrets, blob(told, "root"), client).seat

    def answer(self, client: str, told: RecordDict) -> RecordDict:
        """Answer what the server asks of a client, each request for itself."""
        requests: dict[str, Request] = {
            "agree": self._agree,
            "unmask": self._unmask,
            "share": self._share,
            "advertise": self._advertise,
        }
        simulated = self._trust.simulated
        return answer_each(requests, self._place, (client, told), simulated=simulated)

    def hidden(
        self,
        client: str,
        question: Question,
        update: Tensor,
        weight: int,
        figures: Mapping[str, Sequence[float]],
    ) -> tuple[RecordDict, Seat]:
        """Return what a client sends: its vector under masks, and what its figures are called.

        And in which session that is.

        Parameters
        ----------
        client : str
            Whose it is.
        question : Question
            The message that it answers: in which session, with the shares that neighbours dealt.
        update : Tensor of float, shape (size,)
            May be empty.
        weight : int
            That the update counts with.
        figures : mapping of str to floats
            What is summed besides.

        Raises
        ------
        FedproofError
            If nothing may be sent.
        """
        layout = Layout(len(update), {name: len(values) for name, values in figures.items()})
        numbers = [value for values in figures.values() for value in values]
        with self._place.opened(client) as secrets:
            member = _member(secrets, blob(question.exchange, "root"), client)
            seat = member.seat
            if (seat.purpose, seat.number) != (question.kind, question.number):
                raise seat.refusal("that is not what the message asks for")
            self._place.revealed(client).require_same(
                question.kind, question.model, member.cohort()
            )
            if not first_time(secrets, seat.purpose, seat.number):
                raise _again(seat)
            secrets.setdefault("models", {})[seat.purpose] = question.model.hex()
            codec = self._protection.codec(seat.root, seat.count, len(update), len(numbers))
            words = codec.encode(update, weight, numbers)
            try:
                member.mask(words, numbered(question.exchange, "from", "sealed"))
            finally:
                _keep(secrets, member)
        masked = record_of({"masked": array_of(words)})
        return RecordDict({"masked": masked, "layout": layout.pack()}), seat

    def _advertise(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        del told
        keys = FreshKeys.generate()
        advert = keys.advert(client, self._trust.identity(client))
        spare = secrets.setdefault("keys", {})
        spare[advert.digest.hex()] = [keys.pack().hex(), advert.pack().hex()]
        for old in list(spare)[:-_SPARE]:
            del spare[old]
        return RecordDict({"advertise": ConfigRecord({"advert": advert.pack()})})

    def _share(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        cohort, peers = config(told, "cohort"), config(told, "share")
        session = Session(
            self._place.run,
            kind_of(str(cohort["purpose"])).value,
            int(str(cohort["number"])),
            self._terms,
            cohort_of(blob(cohort, "digests")),
        )
        adverts = [
            Advert.unpack(name, data)
            for name, data in zip(
                listed(peers, "clients", str), listed(peers, "adverts", bytes), strict=True
            )
        ]
        spare = secrets.get("keys", {})
        mine = [d for d in spare if bytes.fromhex(d) in session.digests]
        if not mine:
            raise FedproofError(
                f"client '{client}' has no unused keys for the secure sum of round "
                f"{session.number} ({session.purpose}): it deals no shares twice."
            )
        keys, advert = (bytes.fromhex(text) for text in spare.pop(mine[0]))
        own = Advert.unpack(client, advert)
        member = Member.join(session, FreshKeys.unpack(keys), own, adverts, self._roster)
        # One that was dealt and not masked is replaced: it revealed nothing.
        if not is_ahead(secrets, session.purpose, session.number):
            raise _again(member.seat)
        sealed, committed = member.deal()
        _keep(secrets, member)
        return RecordDict(
            {
                "share": ConfigRecord(
                    {"to": list(sealed), "sealed": list(sealed.values()), "commitment": committed}
                )
            }
        )

    def _agree(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        asked = config(told, "agree")
        member = _member(secrets, blob(asked, "root"), client)
        alive = blob(asked, "alive")
        signature = member.agree(alive, self._trust.identity(client))
        self._settle(client, member.seat, len(members_of(alive)))
        _keep(secrets, member)
        return RecordDict({"agree": ConfigRecord({"signature": signature})})

    def _unmask(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        asked = config(told, "unmask")
        own = self._trust.identity(client).public
        member = _member(secrets, blob(asked, "root"), client)
        # Its secrets are gone before what it answers can leave.
        purpose = member.seat.purpose
        del secrets["members"][purpose]
        models = secrets.get("models", {})
        cohort, model = member.cohort(), bytes.fromhex(models.pop(purpose, ""))
        shares = member.unmask(numbered(asked, "signers", "signatures"), own)
        self._place.revealed(client).note(kind_of(purpose), model, cohort)
        return RecordDict(
            {"unmask": ConfigRecord({"of": list(shares), "shares": list(shares.values())})}
        )


def _member(secrets: Mapping[str, Any], root: bytes, client: str) -> Member:
    for kept in secrets.get("members", {}).values():
        if kept["root"] == root.hex():
            return Member.unpack(kept["member"])
    raise FedproofError(
        f"client '{client}' takes part in no such secure sum, or has ended it: it reveals nothing."
    )


def _keep(secrets: dict[str, Any], member: Member) -> None:
    """Keep one session for each purpose: what an abandoned one left is forgotten."""
    kept = {"root": member.seat.root.hex(), "member": member.pack()}
    secrets.setdefault("members", {})[member.seat.purpose] = kept


def _again(seat: Seat) -> FedproofError:
    """Refuse a second vector for one round: two sums that differ by a client would show it."""
    return seat.refusal(
        "it has sent a vector for this round or a later one before, and sums over other "
        "cohorts could show the difference"
    )
