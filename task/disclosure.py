"""What clients would tell the server about their rows before training, as it is."""

from __future__ import annotations

from conf.schema import Scaling, TaskConfig


def told_sums(config: TaskConfig) -> str | None:
    """Return what makes clients tell sums over their own rows, and what does not; or None.

    Neither noise nor masks reach what is told before training: privacy and secure sums refuse it.
    """
    local = "choose task.scaling=local"
    if config.scaling is Scaling.federated:
        return f"task.scaling=federated tells sums over each client's rows: {local}"
    if config.name != "tabular":
        return None
    if config.scaling is Scaling.none:
        return (
            "task.scaling=none fills gaps with means of all clients, for which each tells sums over"
            f" its rows: {local}"
        )
    if config.options.get("kind") in ("auto", "regression"):
        return (
            f"task.kind={config.options['kind']} tells sums of each client's targets: choose "
            "task.kind=binary or multiclass"
        )
    return None
