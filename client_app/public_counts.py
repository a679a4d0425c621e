"""A client's numbers of rows as others may know them."""

from __future__ import annotations

import time

from client_app.ledgers import ledger_of
from client_app.site import Site
from task.privacy.base import Privacy
from task.privacy.noise import SecureNoise
from task.privacy.row_counts import SPEND, UNIT, RowCounts, released_counts


def public_counts(site: Site, privacy: Privacy | None, client: str, exact: RowCounts) -> RowCounts:
    """Return the counts that a client's answers may depend on.

    A silo whose rows the run's noise protects releases them with noise of their own, once for each
    state of its data: that is in its ledger, with what came out. Where noise protects the client as
    a whole, no noise covers how many rows it has: it tells what its update weighs. Else they are
    exact.

    Parameters
    ----------
    site : Site
        With its policy and ledgers.
    privacy : Privacy or None
        Of the run.
    client : str
        Whose rows they are.
    exact : RowCounts
        How many there are.

    Raises
    ------
    FedproofError
        If the budget does not allow it.
    """
    if privacy is None or site.data is None:
        return exact
    if privacy.unit != UNIT:
        return RowCounts(privacy.weight(exact.train), min(exact.test, 1))
    ledger = ledger_of(site, client)
    known = released_counts(ledger.mine())
    if known is None:
        facts = {"time": round(time.time()), **exact.noised(SecureNoise()).facts}
        ledger.spend(
            ledger.entry(UNIT, SPEND, facts),
            lambda entries: site.policy.check(entries, privacy, client),
        )
        # If another process was first, its release is the one that counts.
        known = released_counts(ledger.mine())
    assert known is not None
    return known
