"""Whom the clients of a node are to each other: their own keys, and those that they know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

from task.identity import Identity, Roster, read_roster


class Trust:
    """Identity keys on one node.

    Parameters
    ----------
    folder : Path
        Where keys are made that no file was given for.
    identity : Path or None
        The key of the node's clients.
    roster : Path or None
        The public keys of all clients, pinned by the silo's operator.
    simulated : bool
        Whether all clients have their keys in `folder`: then it is the roster.

    Attributes
    ----------
    simulated
        As given.
    """

    def __init__(
        self, folder: Path, identity: Path | None, roster: Path | None, *, simulated: bool
    ) -> None:
        self._folder = folder
        self._given = identity
        self._pinned = roster
        self.simulated = simulated
        self.identity = lru_cache(maxsize=4096)(self._identity)

    @property
    def given(self) -> bool:
        """Whether the operator pinned a roster, which no run's settings switch off."""
        return self._pinned is not None

    @cached_property
    def roster(self) -> Roster | None:
        """Public keys by client; None if the node knows nobody.

        Raises
        ------
        FedproofError
            If its file cannot be read.
        """
        if self._pinned is not None:
            return read_roster(self._pinned)
        return _Simulated(self) if self.simulated else None

    def _identity(self, client: str) -> Identity:
        """Return a client's key; it is made when it is first asked for.

        Raises
        ------
        FedproofError
            If its file cannot be read.
        """
        if self._given is not None:
            return Identity.read(self._given)
        path = self._folder / hashlib.sha256(client.encode()).hexdigest()[:40]
        if not path.exists():
            fresh = Identity()
            try:
                fresh.write(path)
                return fresh
            except FileExistsError:
                pass
        return Identity.read(path)


class _Simulated(Mapping[str, bytes]):
    """The roster of a simulation, whose clients' keys are all in one folder."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    def __getitem__(self, client: str) -> bytes:
        return self._trust.identity(client).public

    def __iter__(self) -> Iterator[str]:
        raise TypeError("a simulation's roster is made as it is asked for")

    def __len__(self) -> int:
        raise TypeError("a simulation's roster is made as it is asked for")
