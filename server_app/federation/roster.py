"""Who can take part: clients by their stable ids, and the nodes that serve them today."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from flwr.app import Message, MessageType
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from conf.errors import FedproofError
from conf.schema import FederationConfig
from task.shown import is_plain, shown
from task.wire import Cohort, WireError

LONGEST_ID = 200
"""Characters of a client's id."""
Agree = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
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
    def rows(self) -> dict[str, int]:
        """Training rows of each of them."""
        return {client: self.members[client].train for client in self.trainable}

    @cached_property
    def testable(self) -> list[str]:
        """Clients with held-out rows, sorted."""
        return sorted(client for client, member in self.members.items() if member.test)

    def agreed(self, agree: Agree) -> dict[str, Any]:
        """Return what all clients share; leave out those whose description none can be made of.

        Parameters
        ----------
        agree : callable
            Merges descriptions.

        Raises
        ------
        FedproofError
            If they do not go together.
        """
        told = self.descriptions
        try:
            return agree([told[client] for client in sorted(told)])
        except _UNREADABLE:
            odd = [client for client in sorted(told) if not _readable(agree, told[client])]
        for client in odd:
            del told[client]
            if member := self.members.pop(client, None):
                reason = f"what client '{client}' tells of its rows cannot be read"
                self.refused[member.node] = reason
                log.warning("node %s: %s", member.node, reason)
        self._changed()
        if odd and self.trainable:
            return self.agreed(agree)
        raise FedproofError(
            "what the clients tell of their rows does not go together: give all the same task, "
            "columns and version."
        )

    def _changed(self) -> None:
        for name in ("trainable", "rows", "testable"):
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
            self._require_plausible(client, member)
            if not _finite(descriptions.get(client, {})):
                raise WireError(f"client '{client}' describes its rows by what is no number")
        for client in claims:
            self._require_free(node, client)
        self.members.update(claims)
        self.refused.pop(node, None)
        self.descriptions.update({c: d for c, d in descriptions.items() if c in claims})

    def _require_plausible(self, client: str, member: Member) -> None:
        if not is_plain(client, LONGEST_ID):
            raise WireError(f"it names a client in a way that cannot be shown: {shown(client, 40)}")
        most = self._config.max_examples
        if (claimed := max(member.train, member.test)) > most:
            raise WireError(
                f"client '{client}' claims {claimed} rows, more than federation.max_examples={most}"
            )

    def _require_free(self, node: int, client: str) -> None:
        """Refuse a client that another node serves: before the first round, nobody can tell whose
        it is; later, it is that of the node that serves it.
        """
        if client not in self.members:
            return
        if not self._gathered:
            raise FedproofError(
                f"client '{client}' is served by two nodes, {self.members[client].node} and {node}:"
                " give each SuperNode its own client name (--node-config 'client=\"...\"'), or "
                "unregister the one that lies."
            )
        # A silo's that was started again, maybe, while the SuperLink has not missed the old one.
        self._known.discard(node)
        raise WireError(f"client '{client}' is already served by another node")


def read_reply(reply: Message, digests: Mapping[str, str]) -> Cohort:
    """Return the cohort in a node's reply.

    Raises
    ------
    WireError
        If it is an error, a refusal, or from a node that runs other code or settings.
    """
    if reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE:
        # The SuperLink's word: it was logged out, or its heartbeats have stopped.
        raise WireError("its node left")
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


def _readable(agree: Agree, description: dict[str, Any]) -> bool:
    """Tell whether a description is one; whether it is enough, is for all together to say."""
    try:
        agree([description])
    except FedproofError:
        return True
    except _UNREADABLE:
        return False
    return True


def _finite(value: Any) -> bool:
    """Tell whether all numbers in a JSON value are finite."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _first_line(text: str | None) -> str:
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "no reason")
