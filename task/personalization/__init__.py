"""Personal models: what `personalization=` names, and what does not go with it."""

from __future__ import annotations

from dataclasses import replace

from conf.errors import FedproofError
from conf.schema import Select, Settings
from task.base import ModelSpec
from task.client_update import update_of
from task.client_update.base import ClientUpdate
from task.clusters import joined
from task.flat import State, build_model
from task.personalization.base import Personalization
from task.personalization.layout import Layout
from task.registry import find
from task.seeding import derive


def personalization_of(settings: Settings) -> Personalization | None:
    """Return what the settings name, or None if all clients have one model.

    Raises
    ------
    FedproofError
        If its settings are wrong, or it does not go with others.
    """
    method = find(__name__, settings.personalization.name).build(settings)
    if method is None:
        return None
    assert isinstance(method, Personalization)
    _require_private(settings, method)
    name = settings.personalization.name
    if method.partial and type(update_of(settings)) is not ClientUpdate:
        raise FedproofError(
            f"strategy={settings.strategy.name} corrects local training by what all clients' "
            f"models have in common, of which personalization={name} leaves a part: choose "
            "another strategy, or personalization=ditto."
        )
    if method.keeps and settings.select is Select.best:
        raise FedproofError(
            "select=best goes back to an earlier round's model, and clients keep nothing of "
            f"their own from then (personalization={name}): leave it out."
        )
    return method


def clients_half(settings: Settings) -> ClientUpdate:
    """Return what a client does in a round: the strategy's, and what is personal.

    Raises
    ------
    FedproofError
        If the settings are wrong.
    """
    update, method = update_of(settings), personalization_of(settings)
    return update if method is None else method.wrap(update)


def layout_of(settings: Settings, spec: ModelSpec) -> Layout:
    """Return what of a run's model travels.

    Raises
    ------
    FedproofError
        If the model does not have what the settings want.
    """
    method, module = personalization_of(settings), build_model(settings, spec)
    if method is None:
        return Layout(module)
    return Layout(module, method.private(module), numbered=method.clusters > 0)


def initial_state(settings: Settings, spec: ModelSpec) -> State:
    """Return what the server begins with: initial weights without what is the clients' own.

    Of several models the first is the one that there would be otherwise.

    Raises
    ------
    FedproofError
        If the model does not have what the settings want.
    """
    method, layout = personalization_of(settings), layout_of(settings, spec)
    if method is None or not method.clusters:
        return layout.initial()
    others = (derive(settings.seed, "cluster", i) for i in range(1, method.clusters))
    seeds = [settings.seed, *others]
    return joined([layout_of(replace(settings, seed=s), spec).initial() for s in seeds])


def _require_private(settings: Settings, method: Personalization) -> None:
    """Refuse personal models that tell what a run's privacy hides.

    Raises
    ------
    FedproofError
        With the reason.
    """
    privacy, name = settings.privacy.name, settings.personalization.name
    if privacy == "none":
        return
    if privacy != "record_dp":
        raise FedproofError(
            f"privacy={privacy} hides what single clients do, and held-out figures of a model of "
            "a client's own show it: leave personalization out."
        )
    if not method.one_training:
        raise FedproofError(
            f"personalization={name} uses the clients' rows beside a round's own training, "
            "without noise, and held-out figures of the result are sent: with privacy=record_dp "
            "choose personalization=fedper or fedbn."
        )
