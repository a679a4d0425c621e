"""Who can take part: clients by their stable ids, and the nodes that serve them today."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from conf.errors import FedproofError
from conf.schema import FederationConfig
from task.wire import Cohort, WireError

log = logging.getLogger("flwr")


@dataclass(frozen=True)
class Member:
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

    def refresh(self, grid: Grid) -> None:
        """Ask nodes that are new, and forget the clients of nodes that are gone."""
        present = set(grid.get_node_ids())
        for client, member in list(self.members.items()):
            if member.node not in present:
                log.warning("client %s: its node left", client)
                del self.members[client]
        new, self._known = sorted(present - self._known), present
        if new:
            self._ask(grid, new)

    def trainable(self) -> list[str]:
        """Clients with training rows, sorted."""
        return sorted(client for client, member in self.members.items() if member.train)

    def testable(self) -> list[str]:
        """Clients with held-out rows, sorted."""
        return sorted(client for client, member in self.members.items() if member.test)

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
                log.warning("node %s takes no part: %s", node, error)
        for node in set(nodes) - {r.metadata.src_node_id for r in replies}:
            self._known.discard(node)
        keep = sorted(self.members)[: self._config.clients]
        self.members = {client: self.members[client] for client in keep}

    def _enrol(self, node: int, reply: Message) -> None:
        header = read_reply(reply, self._digests).header
        try:
            claims = {
                str(client): Member(node, _count(claim["train"]), _count(claim["test"]))
                for client, claim in header["clients"].items()
            }
            descriptions = {str(c): dict(v["describes"]) for c, v in header["clients"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise WireError("it does not list its clients") from None
        for client, member in claims.items():
            if client in self.members:
                raise FedproofError(
                    f"client '{client}' is served by two nodes: give each SuperNode its own "
                    "client name (--node-config 'client=\"...\"')."
                )
            if member.train > self._config.max_examples:
                raise WireError(
                    f"client '{client}' claims {member.train} rows, more than "
                    f"federation.max_examples={self._config.max_examples}"
                )
        self.members.update(claims)
        self.descriptions.update({c: d for c, d in descriptions.items() if claims[c].train})


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
