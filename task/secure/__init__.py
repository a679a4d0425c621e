"""What hides single answers from the server: each ``aggregation=`` is a module of this package."""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Settings
from task.disclosure import told_sums
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
    if built is not None and (told := told_sums(settings.task)):
        name = settings.aggregation.name
        raise FedproofError(f"aggregation={name} does not hide what is told beforehand; {told}.")
    return built
