"""Which secure sums a run has, and what does not go with them."""

from __future__ import annotations

from types import ModuleType

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.federation.grid import ClientGrid
from server_app.secure.collected import Collector
from server_app.secure.he import HECollector
from server_app.secure.secagg import SecAggCollector
from task.privacy.base import secret_cohorts
from task.privacy.client_dp import ClientDP
from task.privacy.policy import mechanism_of
from task.secure import protection_of
from task.secure.he import HE


def require_compatible(settings: Settings, strategy: ModuleType) -> None:
    """Refuse what cannot work where the server sees sums only.

    Parameters
    ----------
    settings : Settings
        Of the run.
    strategy : module
        With ``SUM_SUFFICES`` if it needs no more than the weighted mean, ``GROUPS_SUFFICE`` if
        means of groups of clients can take the clients' place.

    Raises
    ------
    FedproofError
        With the reason.
    """
    protection = protection_of(settings)
    if protection is None:
        return
    name, chosen = settings.aggregation.name, settings.strategy.name
    summed = getattr(strategy, "SUM_SUFFICES", False)
    grouped = getattr(strategy, "GROUPS_SUFFICE", False)
    looks = f"strategy={chosen}"
    if settings.defence.name != "none" and (summed or grouped):
        summed, grouped, looks = False, True, f"defence={settings.defence.name}"
    if not summed and not grouped:
        raise FedproofError(
            f"strategy={chosen} looks at what each client answers, which aggregation={name} hides: "
            "choose one that needs the weighted mean only, such as fedavg."
        )
    if not summed and protection.groups == 1:
        raise FedproofError(
            f"{looks} looks at each update, which aggregation={name} hides: let it look at sums "
            "of groups (aggregation.groups=5), or choose a strategy of means and no defence."
        )
    if summed and protection.groups > 1:
        raise FedproofError(
            f"aggregation.groups={protection.groups} shows the server sums of fewer clients, and "
            f"strategy={chosen} does not need them: leave it out."
        )
    if settings.privacy.options.get("max_rows") is not None:
        raise FedproofError(
            "privacy.max_rows needs each client's number of rows at the server, which "
            f"aggregation={name} hides: leave it out."
        )
    mechanism = mechanism_of(settings)
    if isinstance(protection, HE) and isinstance(mechanism, ClientDP) and mechanism.central:
        raise FedproofError(
            "privacy.placement=central adds noise at the server, but with aggregation=he clients "
            "see sums before it does: choose privacy.placement=local, or aggregation=secagg."
        )


def collector_of(settings: Settings, grid: ClientGrid, run: str, cohort: float) -> Collector | None:
    """Return what brings sums about that hide single answers, if the run has them.

    Parameters
    ----------
    settings : Settings
        Of the run.
    grid : ClientGrid
        To the clients.
    run : str
        Flower's id of the run.
    cohort : float
        Clients that train in a round, as expected.

    Raises
    ------
    FedproofError
        If sums of so few may not be seen.
    """
    protection = protection_of(settings)
    if protection is None:
        return None
    least = protection.terms.min_cohort * protection.groups
    if cohort < least:
        raise FedproofError(
            f"rounds of {cohort:g} clients are fewer than the {least} whose sums may be seen "
            f"(aggregation.min_cohort={protection.terms.min_cohort}, aggregation.groups="
            f"{protection.groups}): raise federation.fraction or federation.clients."
        )
    if isinstance(protection, HE):
        return HECollector(protection, grid, settings.seed)
    secret = secret_cohorts(settings)
    return SecAggCollector(protection, grid, run, settings.seed, secret=secret)
