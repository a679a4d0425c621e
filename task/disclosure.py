"""What clients would tell the server about their rows before training, as it is."""

from __future__ import annotations

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
