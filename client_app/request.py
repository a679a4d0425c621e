"""What a node takes from a message: read once, here, and nowhere else.

A field of a message is the server's word. What is done with a client's rows follows from the
settings that the silo accepted and from its policy; a message says which round it is about, and
brings the model and the client's part of a secure sum. Whoever adds a field here gives the server
a say in something: `tests.client_app.test_request` lists them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from task.wire import VECTORS, Cohort, WireError, config

if TYPE_CHECKING:
    # It imports torch, which takes longer than what many messages of a secure sum ask for.
    from task.store import Lineage

_NAME = re.compile(r"[0-9a-z]{1,64}")
_MOST_ROUNDS = 2**40
_MOST_PROCESSES = 10_000
"""Of one run, each of which resumed the one before."""


class Kind(StrEnum):
    """The messages that a node answers; what it does for one is its purpose."""

    query = "query"
    secure = "query.secure"
    train = "train"
    evaluate = "evaluate"
    compare = "evaluate.alone"


@dataclass(frozen=True)
class RoundRequest:
    """What one client is asked in a round.

    Attributes
    ----------
    model : ArrayRecord
        The global model.
    vectors : ArrayRecord or None
        What the strategy sends beside it.
    secure : ConfigRecord or None
        The client's part in the secure sum that its answer goes into.
    clip : float or None
        Where the run's settings adapt it.
    """

    model: ArrayRecord
    vectors: ArrayRecord | None = None
    secure: ConfigRecord | None = None
    clip: float | None = None

    def secure_part(self) -> ConfigRecord:
        """Return which secure sum the client's answer goes into.

        Raises
        ------
        WireError
            If the message does not say.
        """
        if self.secure is None:
            raise WireError("the message holds no 'secure' settings")
        return self.secure


@dataclass(frozen=True)
class ComparisonRequest:
    """What one client is asked when it is to train alone.

    Attributes
    ----------
    start, federated : ArrayRecord
        The models that the run began and ended with.
    rounds : int
        How long to train.
    """

    start: ArrayRecord
    federated: ArrayRecord
    rounds: int


@dataclass(frozen=True)
class SimulationHints:
    """What a simulation's server says besides, for speed; a silo does not look at it.

    Attributes
    ----------
    stack : int
        How many clients train at once.
    groups : list of list of str, or None
        Who trains together; None: by `rows`.
    rows : mapping of str to int
        Training rows of each client.
    sum_from : int
        Clients from which on their models are added up.
    """

    stack: int = 1
    groups: list[list[str]] | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    sum_from: int = 2


@dataclass(frozen=True)
class Request:
    """One message.

    Attributes
    ----------
    kind : Kind
        Of message.
    run : str
        Flower's id of the run, which the server does not choose.
    simulated : bool
        Whether this node has no data of its own.
    digests : mapping of str to object
        Of settings and code, as the server says it has them.
    number : int
        Of the round, from 1; of a comparison the rounds to train; 0 where there is none.
    lineage : sequence of (str, int)
        Names folders of what clients keep: `task.store`.
    agreed : mapping
        What the clients agreed on (``shared``), see `client_app.node.agreement`.
    checkpointed : int
        The last round from which the run can be resumed: older states are deleted.
    sum_unit : float or None
        What to round to where clients' releases may be added up before they leave.
    work : mapping of str to RoundRequest
        What clients are to train or evaluate.
    comparisons : mapping of str to ComparisonRequest
        What they are to compare.
    exchanges : mapping of str to RecordDict
        What they are asked in secure sums (`client_app.secure`).
    hints : SimulationHints
        Without effect on what a release contains.
    """

    kind: Kind
    run: str
    simulated: bool
    digests: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    lineage: Lineage = ()
    agreed: Mapping[str, Any] = field(default_factory=dict)
    checkpointed: int = 0
    sum_unit: float | None = None
    work: Mapping[str, RoundRequest] = field(default_factory=dict)
    comparisons: Mapping[str, ComparisonRequest] = field(default_factory=dict)
    exchanges: Mapping[str, RecordDict] = field(default_factory=dict)
    hints: SimulationHints = field(default_factory=SimulationHints)

    @property
    def clients(self) -> list[str]:
        """Whom it is about, in the order in which they were named."""
        return [*self.work, *self.comparisons, *self.exchanges]


def kind_of(message: Message) -> Kind | None:
    """Return the kind of a message; None if nobody answers such."""
    name = message.metadata.message_type.removesuffix(".default")
    return Kind(name) if name in set(Kind) else None


def is_silo(context: Context) -> bool:
    """Tell whether a node has data of its own."""
    return "data" in context.node_config


def parse(message: Message, context: Context) -> Request:
    """Read a message.

    Raises
    ------
    WireError
        If it does not follow the format.
    """
    kind = kind_of(message)
    if kind is None:
        raise WireError(f"it is of type '{message.metadata.message_type}'")
    cohort = Cohort.unpack(message.content)
    header, simulated = cohort.header, not is_silo(context)
    found: dict[str, Any] = {}
    if kind in (Kind.train, Kind.evaluate):
        found["work"] = {client: _work(part) for client, part in cohort.parts.items()}
    elif kind is Kind.compare:
        found["comparisons"] = {c: _comparison(part) for c, part in cohort.parts.items()}
    elif kind is Kind.secure:
        found["exchanges"] = dict(cohort.parts)
    number = _round(kind, cohort)
    unit, shared = header.get("sum_unit"), header.get("shared")
    return Request(
        kind=kind,
        run=str(context.run_id),
        simulated=simulated,
        digests={name: header.get(name) for name in ("config", "code")},
        number=number,
        lineage=_lineage(header.get("lineage", [])),
        agreed=shared if isinstance(shared, dict) else {},
        checkpointed=_whole(header.get("checkpointed") or 0, "checkpointed", 0),
        sum_unit=unit if isinstance(unit, float) and 0 < unit < math.inf else None,
        hints=_hints(header, list(cohort.parts)) if simulated else SimulationHints(),
        **found,
    )


def _work(part: RecordDict) -> RoundRequest:
    told, vectors, secure = config(part, "config"), part.get(VECTORS), part.get("secure")
    clip = told.get("clip")
    return RoundRequest(
        model=_arrays(part, "arrays"),
        vectors=vectors if isinstance(vectors, ArrayRecord) else None,
        secure=secure if isinstance(secure, ConfigRecord) else None,
        clip=clip if isinstance(clip, float) else None,
    )


def _comparison(part: RecordDict) -> ComparisonRequest:
    return ComparisonRequest(
        start=_arrays(part, "start"),
        federated=_arrays(part, "federated"),
        rounds=_whole(config(part, "config").get("rounds"), "rounds", 1),
    )


def _round(kind: Kind, cohort: Cohort) -> int:
    """Return the one round that a message is about; 0 if its kind has none."""
    key = {Kind.train: "server-round", Kind.evaluate: "server-round", Kind.compare: "rounds"}
    if kind not in key:
        return 0
    numbers = {
        _whole(config(part, "config").get(key[kind]), key[kind], 1)
        for part in cohort.parts.values()
    }
    if len(numbers) > 1:
        raise WireError("it speaks of several rounds")
    return max(numbers, default=0)


def _arrays(part: RecordDict, name: str) -> ArrayRecord:
    found = part.get(name)
    if not isinstance(found, ArrayRecord):
        raise WireError("the server's message holds no model")
    return found


def _whole(value: Any, name: str, least: int) -> int:
    if type(value) is not int or not least <= value <= _MOST_ROUNDS:
        raise WireError(f"its '{name}' is no whole number from {least} on")
    return value


def _lineage(value: Any) -> Lineage:
    """Return the processes of a run, whose names can be folders."""
    try:
        found = [(name, _whole(start, "lineage", 0)) for name, start in value]
        if len(found) <= _MOST_PROCESSES and all(_NAME.fullmatch(name) for name, _ in found):
            return found
    except (TypeError, ValueError):
        pass
    raise WireError("it names the run in a way that cannot be a folder")


def _hints(header: Mapping[str, Any], clients: list[str]) -> SimulationHints:
    """Return what a simulation says for speed.

    Raises
    ------
    WireError
        If its groups are not everybody once: who trained twice would count twice.
    """
    groups = header.get("stacks")
    if groups is not None:
        try:
            whole = sorted(client for group in groups for client in group) == sorted(clients)
        except TypeError:
            whole = False
        if not whole:
            raise WireError("the message's 'stacks' do not name every client once")
    told = header.get("rows")
    rows = told if isinstance(told, dict) else {}
    return SimulationHints(
        stack=_whole(header.get("stack") or 1, "stack", 1),
        groups=groups,
        rows={client: _whole(rows.get(client, 0), "rows", 0) for client in clients},
        sum_from=_whole(header.get("sum_from", 2), "sum_from", 1),
    )
