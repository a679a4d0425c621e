"""Whether federation is worth it, in a sentence; `docs/worth-it.md` has the rules in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from task.worth.bootstrap import Interval
from task.worth.evidence import ClientVerdict, Evidence, effect_of, judge_clients

ALIKE = 0.05
"""Clients whose labels diverge by less, in bits, are called alike."""
_UNDECIDED = 3
"""An interval that includes zero and reaches so many margins leaves the question open."""
_MOST_NAMED = 6


class Decision(Enum):
    """What a comparison comes to."""

    federate = "federate"
    most = "federate, but not for everybody"
    some = "worth it for some"
    none = "worth it for nobody"
    neutral = "not worth it"
    alone = "train alone"
    undecided = "undecided"


@dataclass(frozen=True)
class Verdict:
    """The answer, and what it rests on.

    Attributes
    ----------
    decision : Decision
        For the clients on average, and for those who differ from it.
    centralise : bool
        Whether training on everybody's rows is better still.
    sentence : str
        All of it in words.
    gain, central, price : Interval or None
        Over local training; of central training over the federated model; of leaving privacy out.
    clients : list of ClientVerdict
        One by one.
    """

    decision: Decision
    centralise: bool
    sentence: str
    gain: Interval
    central: Interval | None
    price: Interval | None
    clients: list[ClientVerdict]


def decide(evidence: Evidence) -> Verdict:
    """Apply the rules."""
    gain = evidence.interval(evidence.gain(evidence.local, evidence.federated))
    central = price = None
    if evidence.central is not None:
        central = evidence.interval(evidence.gain(evidence.federated, evidence.central))
    if evidence.unprotected is not None:
        price = evidence.interval(evidence.gain(evidence.federated, evidence.unprotected))
    clients = judge_clients(evidence)
    decision = _decision(gain, evidence, clients)
    better = central is not None and effect_of(central, evidence.margin) == "gains"
    parts = [_opening(decision, evidence, gain, clients)]
    if better and central is not None:
        parts.append(f"centralise if you may: it gains {_told(evidence, central)}")
    if price is not None:
        parts.append(f"privacy costs {_told(evidence, price)}")
    if evidence.improving > 0.5:
        parts.append(
            "the models of clients alone still improved when their rounds ended: raise "
            "baselines.local_rounds before you rely on this"
        )
    sentence = "; ".join(parts) + "."
    return Verdict(decision, better, sentence, gain, central, price, clients)


def _decision(gain: Interval, evidence: Evidence, clients: Sequence[ClientVerdict]) -> Decision:
    if not gain.known:
        return Decision.undecided
    effects = {client.effect for client in clients} if evidence.named else set()
    effect = effect_of(gain, evidence.margin)
    if effect == "gains":
        return Decision.most if "loses" in effects else Decision.federate
    if "gains" in effects:
        return Decision.some
    if effect == "loses":
        return Decision.alone
    if "loses" in effects:
        return Decision.none
    assert gain.high is not None
    wide = gain.high >= _UNDECIDED * evidence.margin
    return Decision.undecided if wide else Decision.neutral


def _opening(
    decision: Decision, evidence: Evidence, gain: Interval, clients: Sequence[ClientVerdict]
) -> str:
    seeds = len(evidence.federated)
    scope = f"{_count(seeds, 'seed')}, {_count(len(evidence.clients), 'client')}"
    verb = "gain" if gain.mean >= 0 else "lose"
    amount = evidence.amount(abs(gain.mean)).removeprefix("+")
    on_average = (
        f"on average clients {verb} {amount} of {evidence.metric} against training alone "
        f"({_bounds(evidence, gain)}{scope})"
    )
    if not gain.known:
        return f"undecided: {on_average}, but nothing was repeated: give seeds=5"
    alike = "clients are alike and " if _alike(evidence) else ""
    return {
        Decision.federate: f"federate: {on_average}",
        Decision.most: f"federate, but not for everybody: {on_average}; {_groups(clients)}",
        Decision.some: f"{_groups(clients)}; {on_average}",
        Decision.none: f"worth it for nobody: {_groups(clients)}; {on_average}",
        Decision.alone: f"not worth it, training alone is better: {on_average}",
        Decision.undecided: f"undecided: {on_average}, which holds both no gain and a worthwhile "
        "one: more seeds or more held-out rows would tell",
        Decision.neutral: f"not worth it: {alike}local training is within the interval "
        f"({on_average})",
    }[decision]


def _groups(clients: Sequence[ClientVerdict]) -> str:
    parts = []
    for effect, words in (
        ("gains", "worth it for"), ("neutral", "neutral for"),
        ("loses", "better off alone:"), ("unclear", "too few rows to tell for"),
    ):  # fmt: skip
        names = [client.name for client in clients if client.effect == effect]
        if names:
            parts.append(f"{words} {_listed(names, len(clients))}")
    return ", ".join(parts)


def _listed(names: Sequence[str], of: int) -> str:
    if len(names) > _MOST_NAMED:
        return f"{len(names)} of {of} clients"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _told(evidence: Evidence, value: Interval) -> str:
    bounds = _bounds(evidence, value).removesuffix("; ")
    return evidence.amount(value.mean) + (f" ({bounds})" if bounds else "")


def _bounds(evidence: Evidence, value: Interval) -> str:
    if value.low is None or value.high is None:
        return ""
    low, high = (evidence.amount(b).removesuffix(" points") for b in (value.low, value.high))
    return f"95 % interval {low} to {high}; "


def _alike(evidence: Evidence) -> bool:
    return evidence.divergence is not None and evidence.divergence < ALIKE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def still_improving(curve: Sequence[float], margin: float, *, lower_is_better: bool) -> bool:
    """Tell whether a client's own model got better by a margin in its last quarter of rounds."""
    if len(curve) < 2:
        return False
    sign = -1.0 if lower_is_better else 1.0
    last = max(1, len(curve) // 4)
    values = sign * np.asarray(curve)
    return bool(values[-last:].mean() - values[:-last][-last:].mean() > margin)
