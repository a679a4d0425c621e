"""What clients would tell the server about their rows before training, as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from conf.schema import Scaling, Settings, TaskConfig


def is_protected(settings: Settings) -> bool:
    """Return whether noise or secure sums protect a run's rows: then nothing else tells of them."""
    return settings.privacy.name != "none" or settings.aggregation.name != "none"


def told_sums(config: TaskConfig) -> str | None:
    """Return what makes clients tell of their own rows before training, and what does not; or None.

    Neither noise nor masks reach what is told before training: privacy and secure sums refuse it.
    """
    if config.scaling is Scaling.federated:
        return (
            "task.scaling=federated tells sums over each client's rows: choose task.scaling=local"
        )
    if config.name != "tabular":
        return None
    if config.options.get("kind") in ("auto", "regression"):
        return (
            f"task.kind={config.options['kind']} tells sums of each client's targets: choose "
            "task.kind=binary or multiclass"
        )
    categories = {*(config.options.get("categories") or ())}
    columns = {*(config.options.get("columns") or ()), *categories}
    if config.target not in categories or len(columns) < 2:
        return (
            "task=tabular tells the columns and categories of each client's rows: name the columns "
            "in task.columns=[...], and what is no number in task.categories.COLUMN=[...], the "
            "target's classes among them"
        )
    return None


def with_categories(
    description: Mapping[str, Any], target: str | None, categories: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return what a client tells of its rows, with its operator's categories in place of theirs.

    Parameters
    ----------
    description : mapping
        From `task.base.Task.describe`.
    target : str or None
        Column of the target.
    categories : mapping of str to sequence of str
        Of some columns; those that are none of the description's are left out.
    """
    known = {name: sorted(values) for name, values in categories.items()}
    told = dict(description)
    if "columns" in told:
        told["columns"] = {
            name: {**column, "values": known[name]}
            if name in known and column["kind"] == "category"
            else column
            for name, column in told["columns"].items()
        }
    if target in known and told.get("target", {}).get("values") is not None:
        told["target"] = {**told["target"], "values": known[target]}
    return told
