"""What a client knows of a session once it has joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from conf.errors import FedproofError
from task.secagg.session import Advert, Session


@dataclass(frozen=True)
class Seat:
    """What a client knows of a session once it has joined.

    Attributes
    ----------
    client : str
        Its name.
    index : int
        Its number.
    root : bytes
        `Session.root`.
    run, purpose, number
        As in `Session`.
    count, threshold, least : int
        Clients in the session, holders that unmask one, the fewest whose sum may be seen.
    """

    client: str
    index: int
    root: bytes
    run: str
    purpose: str
    number: int
    count: int
    threshold: int
    least: int

    @classmethod
    def of(cls, session: Session, own: Advert) -> Self:
        """Find a client's place by its advert; the index is -1 if it has none."""
        return cls(
            client=own.client,
            index=session.digests.index(own.digest) if own.digest in session.digests else -1,
            root=session.root,
            run=session.run,
            purpose=session.purpose,
            number=session.number,
            count=len(session),
            threshold=session.threshold,
            least=session.terms.min_cohort,
        )

    def refusal(self, why: str) -> FedproofError:
        """Return a sentence that names this client and the session."""
        return FedproofError(
            f"client '{self.client}' refuses in the secure sum of round {self.number} "
            f"({self.purpose}): {why}."
        )
