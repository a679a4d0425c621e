"""Everything that a run would tell the server about a silo, for its operator to read before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from conf.schema import Settings
from task.base import Json
from task.disclosure import is_protected
from task.privacy.evaluation import Evaluations
from task.privacy.policy import Policy, mechanism_of
from task.privacy.row_counts import COUNT_DEVIATION
from task.source import DataSource
from task.tables import quoted

EXACT = "exactly as it is"


def disclosures(
    settings: Settings, policy: Policy, data: Path, name: str | None
) -> Iterator[tuple[str, str]]:
    """Yield what is told of a silo's data, and how: names and counts, columns, then each round.

    Parameters
    ----------
    settings : Settings
        Of the run.
    policy : Policy
        Of the silo.
    data : Path
        Its own.
    name : str or None
        Of its client, if its operator gives one.

    Raises
    ------
    FedproofError
        If the data do not fit the run.
    """
    source = DataSource(settings, data, name, whole=policy.one_client, categories=policy.categories)
    mechanism = mechanism_of(settings)
    unit = None if mechanism is None else mechanism.unit
    hidden = settings.aggregation.name
    evaluation = Evaluations.exact if mechanism is None else mechanism.evaluation
    exact = evaluation is Evaluations.exact and not policy.demands_privacy
    yield "names of clients", quoted(source.clients)
    if hidden != "none":
        yield "numbers of rows", "whether there are any"
    elif unit == "record":
        held_out = ", held-out ones exactly" if exact else ""
        yield "numbers of rows", f"with noise of {COUNT_DEVIATION:g} rows, once{held_out}"
    else:
        yield "numbers of rows", EXACT
    if is_protected(settings):
        yield "columns, categories", "nothing: the run declares them"
    else:
        for client in source.clients:
            yield from _described(source.describe(client))
    masks = "" if hidden == "none" else f", in sums of {hidden} only"
    noise = EXACT if unit is None else f"with noise ({settings.privacy.name})"
    yield "updates of the model", noise + masks
    if evaluation is Evaluations.exact and not exact:
        yield "figures of held-out rows", "nothing: the run has privacy.evaluation=exact"
    elif evaluation is Evaluations.none:
        yield "figures of held-out rows", "nothing"
    else:
        yield "figures of held-out rows", (EXACT if exact else "with noise") + masks


def _described(told: Json) -> Iterator[tuple[str, str]]:
    """Yield what a description tells of a plain run's rows."""
    columns = told.get("columns", {})
    for name, column in columns.items():
        if column.get("values"):
            yield f"column '{name}'", f"all its values, {quoted(column['values'])}"
        elif column.get("moments"):
            yield f"column '{name}'", "count, sum and sum of squares"
        else:
            yield f"column '{name}'", "that it is there"
    target = told.get("target", {})
    if target.get("values"):
        yield "the target", f"its classes, {quoted(target['values'])}"
    if target.get("moments"):
        yield "the target", "count, sum and sum of squares"
    if "count" in told:
        yield "every feature", "count, sum and sum of squares"
