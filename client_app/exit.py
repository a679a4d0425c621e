"""The one way out of a node: what leaves is checked by its type, against settings and policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord

from client_app.release import Public, Release, unprotected
from client_app.request import Kind
from client_app.site import Site
from task.privacy.evaluation import Evaluations
from task.refusals import Failure
from task.wire import Cohort

NONE = "none"
"""Of settings that ask for no protection."""


@dataclass
class Answer:
    """What a handler answers.

    Attributes
    ----------
    parts : dict of str to Release
        What leaves each client.
    failures : dict of str to Failure
        Why others have no answer.
    facts : dict
        What the whole message says besides: public facts of the node, and its clock.
    total : ArrayRecord or None
        The sum of what the parts released, in place of each client's own.
    """

    parts: dict[str, Release] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    total: ArrayRecord | None = None


def leave(site: Site, kind: Kind, answer: Answer) -> Cohort:
    """Return what leaves of an answer: the one way out of a node.

    Raises
    ------
    RefusalError
        If a part of it was not made as the run's settings, or the silo's policy, demand.
    """
    for client, release in answer.parts.items():
        _require(site, kind, client, release)
    simulated = site.data is None
    errors = {c: failure.told(simulated=simulated) for c, failure in answer.failures.items()}
    parts = {client: release.content for client, release in answer.parts.items()}
    return Cohort(parts, errors, {**answer.facts, **site.digests}, answer.total)


def refusing(refusal: str) -> Cohort:
    """Return what leaves in place of an answer."""
    return Cohort(header={"refused": refusal})


def _require(site: Site, kind: Kind, client: str, release: Release) -> None:
    if isinstance(release, Public):
        if kind in (Kind.query, Kind.secure):
            return
        raise unprotected(f"client '{client}' answers a message about rows without them")
    policy, settings = site.policy, site.settings
    options = settings.privacy.options
    noised = kind is Kind.evaluate and options.get("evaluation") == Evaluations.noised
    if release.privacy is None and (policy.demands_privacy or noised):
        raise unprotected(f"client '{client}' would send exact figures of its rows")
    demanded = [("aggregation", policy.aggregation, settings.aggregation.name)]
    # How evaluation is protected is a setting of its own (`privacy.evaluation`).
    if kind is not Kind.evaluate:
        demanded.append(("privacy", policy.privacy, settings.privacy.name))
        demanded.append(("placement", policy.placement, str(options.get("placement", NONE))))
    # Where all rows are one party's, what clients can do alone is its own affair.
    own_affair = kind is Kind.compare and site.data is None
    for name, *words in demanded:
        for word in words[:1] if own_affair else words:
            if word not in (None, NONE, getattr(release, name)):
                made = type(release).__name__.lower()
                raise unprotected(f"client '{client}' would send {made} values, not {name}={word}")
