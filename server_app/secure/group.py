"""One session of a secure sum, as records on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from server_app.federation.validation import InvalidAnswerError, decode
from server_app.secure.asking import Parts
from server_app.secure.collected import HiddenSum, Purpose
from task.secagg.server import Aggregator
from task.secagg.session import Advert, Session
from task.secure.secagg import SecAgg
from task.wire import blob, config, listed, numbered, records

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
        self._layout: ConfigRecord | None = None

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

    def add(self, client: str, answer: RecordDict) -> None:
        """Add a client's masked vector."""
        layout = config(answer, "layout")
        if self._layout is None:
            self._layout = layout
        elif layout != self._layout:
            raise InvalidAnswerError("its answer holds other figures than those of the others")
        for arrays in records(answer, ArrayRecord):
            words = decode(arrays["masked"], "masked")
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
        return HiddenSum(self.alive, len(self.clients), update, figures, codec.error)

    @property
    def _lengths(self) -> dict[str, int]:
        assert self._layout is not None
        names, lengths = listed(self._layout, "names", str), listed(self._layout, "lengths", int)
        return dict(zip(names, lengths, strict=True))

    @property
    def _codec(self) -> Codec:
        assert self._layout is not None
        size, session = int(str(self._layout["size"])), self.server.session
        figures = sum(self._lengths.values())
        return self._protection.codec(session.root, len(session), size, figures)
