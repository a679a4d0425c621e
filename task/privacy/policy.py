"""Which mechanism a run has, and what a silo's own policy says to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from conf.errors import FedproofError
from conf.schema import Settings
from task.demands import unmet_demands
from task.options import INFINITY
from task.privacy.base import Privacy
from task.privacy.composition import composed_epsilon
from task.privacy.ledger import Entry, standing
from task.refusals import Refusal, RefusalError
from task.registry import find
from task.rules import ANY, DELTA, FILE, Rules, read_rules, refusals, strictest


def mechanism_of(settings: Settings) -> Privacy | None:
    """Return the mechanism that the settings name, or None if they name none.

    Raises
    ------
    FedproofError
        If its settings are wrong.
    """
    built = find("task.privacy", settings.privacy.name).build(settings)
    assert built is None or isinstance(built, Privacy)
    return built


_STRICT: dict[str, Any] = {"adversary": "active", "identities": "pinned", "threshold": 0.66}
"""What a silo without a policy file demands of secure sums."""


@dataclass(frozen=True)
class Policy:
    """What the operator of a silo demands, whatever the run says (``--node-config``).

    Attributes
    ----------
    privacy : str or None
        The one ``privacy=`` that runs must have.
    placement : str or None
        The one ``privacy.placement`` that they must have.
    max_epsilon : float
        What the ledger may not pass.
    delta : float or None
        At which that is measured; None: at `DELTA`.
    aggregation : str or None
        The one ``aggregation=`` that they must have.
    adversary, identities : str or None
        ``active`` and ``pinned``, where secure sums must hold off a server that cheats; None: as
        the run says.
    min_cohort : int
        The fewest clients whose sum may be seen, where the server sees sums only.
    threshold : float
        The least ``aggregation.threshold``.
    needs_privacy : bool
        Whether a bound on ε keeps runs without privacy out.
    rules : Rules or None
        What the silo's policy file says besides.
    """

    privacy: str | None = None
    placement: str | None = None
    max_epsilon: float = INFINITY
    delta: float | None = None
    aggregation: str | None = None
    adversary: str | None = None
    identities: str | None = None
    min_cohort: int = 3
    threshold: float = 0.5
    needs_privacy: bool = True
    rules: Rules | None = None

    @property
    def one_client(self) -> bool:
        """Whether all of the silo's data are one client, also where they name several."""
        return self.rules is not None and self.rules.client == FILE

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """Of some columns, the categories that are told in place of those in the rows."""
        known = () if self.rules is None else self.rules.categories
        return {category.column: category.values for category in known}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read what a node config demands: the attributes, with dashes, and a file of `policy`.

        The stricter of the two counts. A node with ``data`` of its own trusts no server with whom
        it adds up, unless its operator says ``adversary="any"`` or ``identities="any"``.

        Raises
        ------
        FedproofError
            If a number is none, or none that can be kept to, or the file cannot be read.
        """
        texts = ("privacy", "placement", "aggregation", "adversary", "identities")
        numbers = {"max-epsilon": INFINITY, "delta": 1.0, "min-cohort": INFINITY, "threshold": 1.0}
        told: dict[str, Any] = {key: str(config[key]) for key in texts if key in config}
        told |= {k: _number(config[k], k, below) for k, below in numbers.items() if k in config}
        told = {key.replace("-", "_"): value for key, value in told.items()}
        rules = None
        if "policy" in config:
            rules = read_rules(Path(str(config["policy"])).expanduser())
            told = strictest(rules, told)
        elif "data" in config:
            told = _STRICT | told
        return cls(**{key: value for key, value in told.items() if value != ANY}, rules=rules)

    @property
    def demands_privacy(self) -> bool:
        """Whether nothing that depends on rows may leave without noise."""
        bounded = self.needs_privacy and self.max_epsilon < INFINITY
        return self.privacy is not None or bounded

    def require(self, settings: Settings) -> None:
        """Refuse a run without the mechanism that is demanded, or that asks for too much.

        Raises
        ------
        FedproofError
            Then.
        """
        for refusal in self.refusals(settings):
            raise refusal

    def refusals(self, settings: Settings) -> Iterator[FedproofError]:
        """Yield why a run is refused, demand by demand."""
        if self.rules is not None:
            yield from refusals(self.rules, settings)
        if self.privacy is not None and settings.privacy.name != self.privacy:
            yield FedproofError(
                f"this node's policy demands privacy={self.privacy}, the run has "
                f"privacy={settings.privacy.name}: nothing is sent."
            )
        placement = settings.privacy.options.get("placement")
        if self.placement is not None and placement != self.placement:
            yield FedproofError(
                f"this node's policy demands privacy.placement={self.placement}, the run has "
                f"{placement or 'no client-level privacy'}: nothing is sent."
            )
        bounded = self.needs_privacy and self.max_epsilon < INFINITY
        if bounded and settings.privacy.name == "none":
            yield FedproofError(
                f"this node's policy allows max-epsilon={self.max_epsilon:g}, the run has no "
                "privacy: nothing is sent."
            )
        yield from self._open_sums(settings)
        if self.demands_privacy or self.aggregation is not None:
            yield from unmet_demands(settings)

    def _open_sums(self, settings: Settings) -> Iterator[FedproofError]:
        name, options = settings.aggregation.name, settings.aggregation.options
        if self.aggregation is not None and name != self.aggregation:
            yield FedproofError(
                f"this node's policy demands aggregation={self.aggregation}, the run has "
                f"aggregation={name}: nothing is sent."
            )
        for key, demanded in (("adversary", self.adversary), ("identities", self.identities)):
            if demanded is not None and options.get(key, demanded) != demanded:
                yield FedproofError(
                    f"this node's policy demands aggregation.{key}={demanded}, the run has "
                    f"aggregation.{key}={options[key]}: nothing is sent."
                )
        for key, least in (("min_cohort", self.min_cohort), ("threshold", self.threshold)):
            if key in options and options[key] < least:
                yield FedproofError(
                    f"this node's policy demands {key.replace('_', '-')}={least:g} at least, the "
                    f"run has aggregation.{key}={options[key]:g}: nothing is sent."
                )

    def check(self, entries: Sequence[Entry], mechanism: Privacy, client: str) -> float:
        """Return what a ledger's entries cost together, if that is allowed.

        Raises
        ------
        FedproofError
            If it is more than the silo's policy, or the run's ``max_epsilon``.
        """
        delta = self.measured_at(mechanism)
        counted = [entry for entry in standing(entries) if entry.unit == mechanism.unit]
        cost = composed_epsilon(counted, delta)
        _require_within(cost, self.max_epsilon, delta, client)
        if mechanism.max_epsilon < INFINITY:
            own = cost if mechanism.delta == delta else composed_epsilon(counted, mechanism.delta)
            _require_within(own, mechanism.max_epsilon, mechanism.delta, client)
        return cost

    def measured_at(self, mechanism: Privacy) -> float:
        """Return the δ at which a ledger is measured: the operator's, where it bounds ε at all.

        Of a run's own choice it would be whatever makes ε small.
        """
        return self.delta or (DELTA if self.max_epsilon < INFINITY else mechanism.delta)


def _require_within(cost: float, most: float, delta: float, client: str) -> None:
    if cost > most:
        raise RefusalError(
            Refusal.budget,
            f"client '{client}' has reached its budget: one more round would cost "
            f"ε = {cost:.3f} in all, max_epsilon is {most:g} (δ = {delta:g}).",
        )


def _number(value: Any, key: str, below: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < below:
        limits = "positive" if below == INFINITY else f"between 0 and {below:g}"
        raise FedproofError(f"--node-config {key}={value} must be {limits}.")
    return number
