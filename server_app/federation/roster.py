"""Who can take part: clients by their stable ids, and the nodes that serve them today."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from conf.errors import FedproofError
from conf.schema import FederationConfig
from task.wire import Cohort, WireError

log = logging.getLogger("flwr")


class Member(NamedTuple):
    """A client as the roster knows it: its node and its numbers of rows."""

    node: int
    train: int
    test: int


class Roster:
    """Clients and the nodes that serve them; nodes come and go, client ids stay.

    Parameters
    ----------
    config : FederationConfig
        Nodes to wait for, the largest believable client, the number of clients to keep.
    digests : mapping
        This server's digests of settings and code; a node with others is refused.
    """

    def __init__(self, config: FederationConfig, digests: Mapping[str, str]) -> None:
        self._config = config
        self._digests = dict(digests)
        self.members: dict[str, Member] = {}
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.refused: dict[int, str] = {}
        self._known: set[int] = set()
        self._gathered = False

    def gather(self, grid: Grid) -> None:
        """Wait for the nodes that the settings ask for, then learn whom they serve.

        Raises
        ------
        FedproofError
            If too few nodes connect, or none of them may take part.
        """
        wanted = self._config.nodes or 1
        deadline = time.monotonic() + self._config.wait
        while len(nodes := set(grid.get_node_ids())) < wanted:
            if time.monotonic() > deadline:
                raise FedproofError(
                    f"{len(nodes)} of {wanted} SuperNodes connected within "
                    f"{self._config.wait:g} s: start the others or lower federation.nodes."
                )
            time.sleep(0.5)
        self.refresh(grid)
        if not self.members:
            reasons = "; ".join(sorted(set(self.refused.values()))) or "no node answered"
            raise FedproofError(f"no client can take part: {reasons}")
        self._gathered = True

    def refresh(self, grid: Grid) -> None:
        """Ask nodes that are new, and forget the clients of nodes that are gone."""
        present = set(grid.get_node_ids())
        if self._known - present:
            for client, member in list(self.members.items()):
                if member.node not in present:
                    log.warning("client %s: its node left", client)
                    del self.members[client]
            self._changed()
        new, self._known = sorted(present - self._known), present
        if new:
            self._ask(grid, new)

    @cached_property
    def trainable(self) -> list[str]:
        """Clients with training rows, sorted."""
        return sorted(client for client, member in self.members.items() if member.train)

    @cached_property
    def testable(self) -> list[str]:
        """Clients with held-out rows, sorted."""
        return sorted(client for client, member in self.members.items() if member.test)

    def _changed(self) -> None:
        for name in ("trainable", "testable"):
            self.__dict__.pop(name, None)

    def _ask(self, grid: Grid, nodes: Iterable[int]) -> None:
        question = Cohort(header=self._digests).pack()
        messages = [Message(question, dst_node_id=n, message_type=MessageType.QUERY) for n in nodes]
        replies = list(grid.send_and_receive(messages, timeout=self._config.timeout))
        for reply in sorted(replies, key=lambda r: r.metadata.src_node_id):
            node = reply.metadata.src_node_id
            try:
                self._enrol(node, reply)
            except WireError as error:
                self.refused[node] = str(error)
                if reply.has_error():
                    # Not that it will not: what failed may work at the next round.
                    self._known.discard(node)
                log.warning("node %s takes no part: %s", node, error)
        for node in set(nodes) - {r.metadata.src_node_id for r in replies}:
            self._known.discard(node)
        keep = sorted(self.members)[: self._config.clients]
        self.members = {client: self.members[client] for client in keep}
        self._changed()

    def _enrol(self, node: int, reply: Message) -> None:
        header = read_reply(reply, self._digests).header
        try:
            listing = zip(header["clients"], header["train"], header["test"], strict=True)
            claims = {
                str(client): Member(node, _count(train), _count(test))
                for client, train, test in listing
            }
            descriptions = {str(c): dict(told) for c, told in header["describes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise WireError("it does not list its clients") from None
        for client, member in claims.items():
            if client in self.members:
                self._twice(node, client)
            if member.train > self._config.max_examples:
                raise WireError(
                    f"client '{client}' claims {member.train} rows, more than "
                    f"federation.max_examples={self._config.max_examples}"
                )
        self.members.update(claims)
        self.refused.pop(node, None)
        self.descriptions.update({c: d for c, d in descriptions.items() if c in claims})

    def _twice(self, node: int, client: str) -> None:
        """Refuse a node that serves somebody else's client.

        One that joins a run under way may be a silo's that was started again, while the SuperLink
        has not missed the old one yet: it is asked again at the next round.
        """
        if not self._gathered:
            raise FedproofError(
                f"client '{client}' is served by two nodes: give each SuperNode its own "
                "client name (--node-config 'client=\"...\"')."
            )
        self._known.discard(node)
        raise WireError(f"another node that has not left serves client '{client}'")


def read_reply(reply: Message, digests: Mapping[str, str]) -> Cohort:
    """Return the cohort in a node's reply.

    Raises
    ------
    WireError
        If it is an error, a refusal, or from a node that runs other code or settings.
    """
    if reply.has_error():
        raise WireError(f"its ClientApp failed: {_first_line(reply.error.reason)}")
    cohort = Cohort.unpack(reply.content)
    if "refused" in cohort.header:
        raise WireError(str(cohort.header["refused"]))
    for kind, mine in digests.items():
        if cohort.header.get(kind) != mine:
            raise WireError(f"it runs other {kind} than this server")
    return cohort


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _first_line(text: str | None) -> str:
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "no reason")
