"""What hides single answers from the server: each ``aggregation=`` is a module of this package."""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Scaling, Settings
from task.registry import find
from task.secure.he import HE
from task.secure.secagg import SecAgg

Protection = SecAgg | HE


def protection_of(settings: Settings) -> Protection | None:
    """Return what the settings name, or None if the server sees single answers.

    Raises
    ------
    FedproofError
        If its settings are wrong, or the run tells the server what this is to hide.
    """
    built = find("task.secure", settings.aggregation.name).build(settings)
    assert built is None or isinstance(built, Protection)
    if built is not None and settings.task.scaling is Scaling.federated:
        raise FedproofError(
            "task.scaling=federated tells the server sums over each client's rows, which "
            f"aggregation={settings.aggregation.name} is to hide: choose task.scaling=local."
        )
    return built
