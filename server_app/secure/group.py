"""One session of a secure sum, as records on the wire."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from server_app.federation.validation import InvalidAnswerError, decode
from server_app.secure.asking import Parts
from server_app.secure.collected import HiddenSum, Purpose, implausible
from task.layouts import Layout, usual
from task.secagg.encoding import LARGEST
from task.secagg.server import AbandonedError, Aggregator
from task.secagg.session import Advert, Session
from task.secure.secagg import SecAgg
from task.wire import blob, config, numbered, records

if TYPE_CHECKING:
    from task.secure.secagg import Codec


class Group:
    """One session, and what its figures are called."""

    def __init__(
        self, protection: SecAgg, run: str, purpose: Purpose, adverts: list[Advert]
    ) -> None:
        digests = tuple(advert.digest for advert in adverts)
        session = Session(run, purpose.name, purpose.number, protection.terms, digests)
        self._protection = protection
        self.server = Aggregator(session, adverts)
        self.clients = [advert.client for advert in adverts]
        self._layout: Layout | None = None

    @property
    def dealt(self) -> list[str]:
        """Clients that dealt shares."""
        return [client for i, client in enumerate(self.clients) if i in self.server.dealt]

    @property
    def alive(self) -> list[str]:
        """Clients whose vectors arrived."""
        return [client for i, client in enumerate(self.clients) if i in self.server.alive]

    def requests(self) -> Parts:
        """Return requests for shares."""
        session = self.server.session
        cohort = ConfigRecord(
            {
                "purpose": session.purpose,
                "number": session.number,
                "digests": b"".join(session.digests),
            }
        )
        return {
            client: RecordDict(
                {
                    "cohort": cohort,
                    "share": ConfigRecord(
                        {
                            "clients": [peer.client for peer in self.server.neighbours(i)],
                            "adverts": [peer.pack() for peer in self.server.neighbours(i)],
                        }
                    ),
                }
            )
            for i, client in enumerate(self.clients)
        }

    def take_shares(self, client: str, told: ConfigRecord) -> None:
        """Take what a client dealt."""
        sealed = numbered(told, "to", "sealed")
        self.server.take_shares(self.server.numbers[client], sealed, blob(told, "commitment"))

    def delivery(self, client: str) -> ConfigRecord:
        """Return what was dealt to a client, and in which session."""
        shares = self.server.shares_for(self.server.numbers[client])
        return ConfigRecord(
            {
                "root": self.server.session.root,
                "from": list(shares),
                "sealed": list(shares.values()),
            }
        )

    def expect(self, layouts: Iterable[Layout]) -> None:
        """Settle what the vectors hold, by what most clients of the session say of theirs."""
        self._layout = usual(layouts)

    def add(self, client: str, answer: RecordDict) -> None:
        """Add a client's masked vector.

        Raises
        ------
        WireError, InvalidAnswerError, FedproofError
            If it is none, or not like the others.
        """
        if Layout.unpack(config(answer, "layout")) != self._layout:
            raise InvalidAnswerError("its answer holds other figures than those of the others")
        found = records(answer, ArrayRecord)
        if len(found) != 1 or list(found[0]) != ["masked"]:
            raise InvalidAnswerError("its answer holds no masked vector, or several")
        words = decode(found[0]["masked"], "masked")
        self.server.add([self.server.numbers[client]], words, self._codec.length)

    def unmasking(self) -> Parts:
        """Return requests to unmask, for those who signed."""
        server = self.server
        requests: Parts = {}
        for client in self.alive:
            signatures = server.signatures_for(server.numbers[client])
            if server.numbers[client] in signatures:
                told = ConfigRecord(
                    {
                        "root": server.session.root,
                        "signers": list(signatures),
                        "signatures": list(signatures.values()),
                    }
                )
                requests[client] = RecordDict({"unmask": told})
        return requests

    def take_unmasking(self, client: str, told: ConfigRecord) -> None:
        """Take the shares that a client reveals."""
        self.server.take_unmasking(self.server.numbers[client], numbered(told, "of", "shares"))

    def sum(self) -> HiddenSum:
        """Return the sum.

        Raises
        ------
        AbandonedError
            If there is none.
        """
        total, codec = self.server.total(), self._codec
        update, numbers = codec.decode(total, len(self.server.alive))
        figures = {}
        for name, length in self._lengths.items():
            figures[name], numbers = numbers[:length], numbers[length:]
        found = HiddenSum(self.alive, len(self.clients), update, figures, codec.error)
        terms = self._protection.terms
        # Clients add noise that has no bound.
        largest = terms.range if self._protection.noise is None else math.inf
        if why := implausible(found, largest, terms.max_weight, LARGEST):
            raise AbandonedError(why)
        return found

    @property
    def _lengths(self) -> Mapping[str, int]:
        assert self._layout is not None
        return self._layout.figures

    @property
    def _codec(self) -> Codec:
        assert self._layout is not None
        size, session = self._layout.size, self.server.session
        figures = sum(self._lengths.values())
        return self._protection.codec(session.root, len(session), size, figures)
