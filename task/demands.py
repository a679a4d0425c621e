"""Settings that could weaken what a silo demands, and what they must be then.

A silo that demands privacy or secure sums demands these, too, whatever mechanism it is: a run has
no use for them that is worth what they tell. All other settings are bounded by a rule of the policy
file, by the mechanism itself, or harmless; `tests/task/test_demands.py` says which, for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from conf.digest import plain
from conf.schema import Settings
from task.rules import RefusedError

RULE = "protection"
"""What the refusals are called, where rules of the file have their own names."""


@dataclass(frozen=True)
class Demand:
    """What one setting must be, where a run has it.

    Attributes
    ----------
    reason : str
        What another value would tell.
    value : bool, int, str or None
        The only one that is allowed; None: any number from `least` on.
    least : float
        The smallest number that is allowed.
    """

    reason: str
    value: bool | int | str | None = None
    least: float = 0.0

    def allows(self, value: Any) -> bool:
        """Return whether a run may have this value."""
        if self.value is not None:
            return bool(value == self.value)
        return isinstance(value, int | float) and value >= self.least


DEMANDS = {
    "attack.name": Demand("attacks are for simulated clients", "none"),
    "aggregation.corrupt": Demand("fewer neighbours could open a client's vector", least=0.1),
    "aggregation.dropout": Demand("fewer neighbours could open a client's vector", least=0.1),
    "compare": Demand("it asks for figures of models that clients train alone", False),
    "privacy.colluders": Demand("noise that another client knows would count", least=1),
    "profile": Demand("seconds tell how many rows there are", False),
    "task.download": Demand("a silo reads its own data and fetches none", False),
    "task.length": Demand("one record would be less than it is by default", least=80),
    "task.min_rows": Demand("one row more could bring in many others", 1),
}


def unmet_demands(settings: Settings) -> Iterator[RefusedError]:
    """Yield why settings are not what a silo demands that protects its rows."""
    values = plain(settings)
    for name, demand in DEMANDS.items():
        group, _, key = name.rpartition(".")
        found = values[group] if group else values
        if key in found and not demand.allows(found[key]):
            wanted = f"at least {demand.least:g}" if demand.value is None else demand.value
            yield RefusedError(
                RULE, f"the run has {name}={found[key]}, not {wanted}: {demand.reason}"
            )
